"""What a child has from the zygote that it was forked from, beside the modules themselves."""

from __future__ import annotations

from typing import List, NamedTuple

from sandbox import blas
from sandbox.steering import Steering


class Heritage(NamedTuple):
    """setters: see `blas.setters`. steering: the variables under which modules were imported."""

    setters: List[blas.Setter]
    steering: Steering
