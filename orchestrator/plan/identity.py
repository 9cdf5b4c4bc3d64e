"""What a replica was born with, as text: `1:<hex>` of the specification, `~<hex>` of the folders that it mounted then,
`+g18` where it was born for one generation, `+r3` after that many were asked to be made anew. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping


def born_with(specification: str, mounts: Mapping[str, str], generation: int | None = None, renewals: int = 0) -> str:
    """mounts: by path, what tells a folder from another at the same path (device and inode)."""
    text = "\0".join(f"{path}\0{identity}" for path, identity in sorted(mounts.items()))
    mounted = f"~{hashlib.sha256(text.encode()).hexdigest()[:8]}" if mounts else ""
    born_for = "" if generation is None else f"+g{generation}"
    return f"{specification}{mounted}{born_for}" + (f"+r{renewals}" if renewals else "")


def specification_of(replica_hash: str) -> str:
    """The part that the files decide."""
    return re.split(r"[~+]", replica_hash)[0]


def mounts_of(replica_hash: str) -> str:
    """The part that the mounted folders decide."""
    return replica_hash.partition("+")[0].partition("~")[2]
