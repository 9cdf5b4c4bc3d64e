"""What a child has from the zygote that it was forked from, beside the modules themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, NamedTuple, Optional

from sandbox import blas
from sandbox.steering import Steering

if TYPE_CHECKING:  # the agent comes by here too, and must stay small
    from sandbox.preloading import Preloaded


class Heritage(NamedTuple):
    """setters: see `blas.setters`. steering: the variables under which modules were imported. preloaded: where the
    zygote ran preload.py.
    """

    setters: List[blas.Setter]
    steering: Steering
    preloaded: Optional["Preloaded"] = None
