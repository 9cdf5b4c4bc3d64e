"""numpy in type hints: what an annotated array or scalar means. It never imports numpy: a model that names it has."""

from __future__ import annotations

import sys
import typing
from typing import Any, Callable, NamedTuple, Optional


class Dtype(NamedTuple):
    """A numpy hint. name: "float32", or "" where the hint leaves the element type open. scalar: one element."""

    name: str
    scalar: bool


def read(hint: Any) -> Optional[Dtype]:
    """What `numpy.ndarray`, `numpy.typing.NDArray[numpy.float32]` or `numpy.float32` asks for; None for other hints."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if hint is numpy.ndarray:
        return Dtype("", False)
    if typing.get_origin(hint) is numpy.ndarray:
        return Dtype(_element(numpy, typing.get_args(hint)), False)
    if isinstance(hint, type) and issubclass(hint, numpy.generic) and hasattr(hint, "dtype"):
        try:
            return Dtype(numpy.dtype(hint).name, True)
        except TypeError:  # an abstract one, numpy.floating say
            return None
    return None


def _element(numpy: Any, arguments: Any) -> str:
    for argument in arguments[1:]:
        for kind in typing.get_args(argument):
            try:
                return "" if kind is Any else str(numpy.dtype(kind).name)
            except TypeError:
                return ""
    return ""


def maker(dtype: Dtype) -> Callable[[Any], Any]:
    """From a JSON value, or an array, to what the hint asks for. Raises ValueError or TypeError."""
    numpy = sys.modules["numpy"]
    wanted = numpy.dtype(dtype.name) if dtype.name else None

    def make(value: Any) -> Any:
        if wanted is not None and dtype.scalar:
            if isinstance(value, (list, dict, str)) or value is None:
                raise TypeError("expected a number")
            return wanted.type(value)
        if not isinstance(value, (list, numpy.ndarray)):
            raise TypeError("expected array")
        made = numpy.asarray(value, dtype=wanted)
        if made.dtype == object:
            raise ValueError("its rows differ in length or kind")
        return made

    return make
