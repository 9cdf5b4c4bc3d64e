"""Which folders a model's replicas mount, and what tells each from another at the same path. It watches nothing.

A mount stays with the folder that was there when it was made: of one that was deleted and made again, it shows the dead
one for ever. Nothing tells of that but device and inode.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from orchestrator.plan.types import ModelDesired
from orchestrator.spec.resolve import data_dir


def mounted(model: ModelDesired) -> Mapping[str, str]:
    """Device and inode by path, of those that are there."""
    data = data_dir(model.path)
    found = {}
    for path in {*(mount.source for mount in model.mounts), *([data] if data is not None else [])}:
        try:
            status = os.stat(path)
        except OSError:
            continue
        found[path] = f"{status.st_dev}:{status.st_ino}"
    return found
