"""A queue that is fair between clients: each in its turn has one item taken, however many it put in."""

from __future__ import annotations

import collections
from typing import Deque, Dict, Generic, Iterator, Optional, Tuple, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """First in, first out within a client; round robin between clients. Every step but `remove` is O(1)."""

    def __init__(self) -> None:
        # A dict keeps the order of insertion: its first key is the client whose turn it is.
        self._clients: Dict[str, Deque[Item]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        for items in self._clients.values():
            yield from items

    def push(self, client: str, item: Item) -> None:
        """Put an item in, behind those of the same client."""
        items = self._clients.get(client)
        if items is None:
            self._clients[client] = items = collections.deque()
        items.append(item)
        self._count += 1

    def pop(self) -> Item:
        """Take the next item out. Raises IndexError where there is none."""
        entry: Optional[Tuple[str, Deque[Item]]] = next(iter(self._clients.items()), None)
        if entry is None:
            raise IndexError("nothing waits")
        client, items = entry
        del self._clients[client]
        item = items.popleft()
        if items:
            self._clients[client] = items  # to the end: everyone else comes first now
        self._count -= 1
        return item

    def remove(self, client: str, item: Item) -> None:
        """Take this item out, if it is still in."""
        items = self._clients.get(client)
        if items is None or item not in items:
            return
        items.remove(item)
        if not items:
            del self._clients[client]
        self._count -= 1
