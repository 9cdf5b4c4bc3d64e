"""What a zygote does before it forks, as a value: variables to set and modules to import, in order; and preload.py."""

from __future__ import annotations

import os
from typing import List, Tuple

# ("import", module) or ("set" | "default", variable, value)
Step = Tuple[str, ...]
MOST = 500
_LENGTHS = {"import": 2, "set": 3, "default": 3}
PRELOAD = "preload.py"


def received(steps: object) -> List[Step]:
    """Steps as a checker sent them, made sure to have their form: it had the user's text before it."""
    given = steps if isinstance(steps, list) else []
    texts = [tuple(step) for step in given if isinstance(step, list) and all(isinstance(each, str) for each in step)]
    return [step for step in texts if step and len(step) == _LENGTHS.get(step[0])][:MOST]


def preloads(tree: str) -> bool:
    """Whether this snapshot has a preload.py."""
    return os.path.isfile(os.path.join(tree, PRELOAD))
