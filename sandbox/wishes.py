"""What the next zygote is to do before it forks: asked for, read from the files, learned; less what proved unfit.

It knows steps and names. Which zygote takes them, and when, is not its business.
"""

from __future__ import annotations

import os
from typing import Dict, List, Set

from sandbox import wire
from sandbox.forker import Wish
from sandbox.steps import Step


class Wishes:
    """asked: control's; scanned: what the newest files begin with.

    unfit: packages that were steered otherwise than could be foreseen, and why: each worker imports them itself.
    hopeless: wishes whose zygote did not come up: the same would fail again.
    """

    def __init__(self) -> None:
        self.asked: List[Step] = []
        self.scanned: List[Step] = []
        self.unfit: Dict[str, str] = {}
        self.hopeless: List[Wish] = []
        self._learned: List[str] = []
        # What workers of other replicas imported. Whether this model bears it, and needs it, is not known.
        self._handed: List[str] = []
        self._was_handed = False

    def now(self, *, handed: bool = True) -> Wish:
        """handed: with what other replicas imported."""
        names = [*self._learned, *(self._handed if handed else ())]
        steps = dict.fromkeys([*self.asked, *self.scanned, *(("import", name) for name in names)])
        return tuple(step for step in steps if step[0] != "import" or package(step[1]) not in self.unfit)

    def learn(self, imports: List[str]) -> None:
        """Add what a worker imported. A fork cannot tell what it did not need to."""
        self._learned = wire.by_depth([*self._learned, *imports])

    def hand(self, imports: List[str]) -> None:
        """What workers of other replicas imported; once, so that what was renounced does not come back."""
        if not self._was_handed:
            self._handed, self._was_handed = wire.by_depth(imports), True

    def namesakes(self, tree: str) -> None:
        """Leave out what is handed and has the name of a file of this snapshot: its workers import the file."""
        if self._handed:
            there = {entry.partition(".")[0] for entry in (os.listdir(tree) if os.path.isdir(tree) else ())}
            self._handed = [name for name in self._handed if package(name) not in there]

    def renounce(self) -> Set[str]:
        """Do without what was handed; what that was beside what is known here."""
        handed, self._handed = set(self._handed), []
        return handed - {step[1] for step in self.now()}

    def has_handed(self, wish: Wish) -> bool:
        """Whether a wish has something that only other replicas imported."""
        return bool({step[1] for step in wish} & set(self._handed) - {step[1] for step in self.now(handed=False)})


def package(module: str) -> str:
    """Its top-level name."""
    return module.partition(".")[0]


def steered(wish: Wish) -> Dict[str, Wish]:
    """Each import with the variables that are set before it."""
    found: Dict[str, Wish] = {}
    before: Wish = ()
    for step in wish:
        if step[0] == "import":
            found.setdefault(step[1], before)
        else:
            before = (*before, step)
    return found
