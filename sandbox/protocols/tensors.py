"""Tensors of the Open Inference Protocol: datatype, shape and data, as JSON or as raw little-endian bytes.

It knows neither requests nor models. Without numpy; arrays that a model uses itself are passed as they are.
"""

from __future__ import annotations

import array
import json
import math
import struct
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

from sandbox import result

# datatype → (numpy's name, array's type code; FP16 has none, BOOL and BYTES are their own case)
_TYPES: Dict[str, Tuple[str, str]] = {
    "BOOL": ("bool", ""),
    "UINT8": ("uint8", "B"),
    "UINT16": ("uint16", "H"),
    "UINT32": ("uint32", "I"),
    "UINT64": ("uint64", "Q"),
    "INT8": ("int8", "b"),
    "INT16": ("int16", "h"),
    "INT32": ("int32", "i"),
    "INT64": ("int64", "q"),
    "FP16": ("float16", ""),
    "FP32": ("float32", "f"),
    "FP64": ("float64", "d"),
    "BYTES": ("object", ""),
}
_NAMES = {numpy: datatype for datatype, (numpy, _) in _TYPES.items()}
_SIZES = {"BOOL": 1, "FP16": 2, **{name: array.array(code).itemsize for name, (_, code) in _TYPES.items() if code}}
_RANGES = {
    name: (-(1 << (8 * _SIZES[name] - 1)), (1 << (8 * _SIZES[name] - 1)) - 1)
    if name.startswith("INT")
    else (0, (1 << (8 * _SIZES[name])) - 1)
    for name in _TYPES
    if "INT" in name
}


class TensorError(Exception):
    """A tensor that is not what it says. The text says what is wrong with it."""


class Tensor:
    """datatype, shape, and its elements: a flat list, or a numpy array where the model gave or wants one."""

    __slots__ = ("datatype", "elements", "shape")

    def __init__(self, datatype: str, shape: Sequence[int], elements: Any) -> None:
        self.datatype = datatype
        self.shape = list(shape)
        self.elements = elements

    @property
    def is_array(self) -> bool:
        return hasattr(self.elements, "dtype")

    def nested(self) -> Any:
        """The elements as lists in lists, as `shape` says."""
        if self.is_array:
            return self.elements.tolist()
        return _nest(self.elements, self.shape)

    def flat(self) -> List[Any]:
        """The elements in row-major order."""
        flat: List[Any] = self.elements.reshape(-1).tolist() if self.is_array else self.elements
        return flat

    def raw(self) -> bytes:
        """The elements as bytes of the binary extension."""
        if self.datatype == "BYTES":
            parts = [element.encode("utf-8") if isinstance(element, str) else bytes(element) for element in self.flat()]
            return b"".join(struct.pack("<I", len(part)) + part for part in parts)
        if self.is_array:
            little: bytes = self.elements.astype(self.elements.dtype.newbyteorder("<"), copy=False).tobytes()
            return little
        if self.datatype == "BOOL":
            return bytes(self.elements)
        if self.datatype == "FP16":
            return struct.pack(f"<{len(self.elements)}e", *self.elements)
        return bytes(_little(array.array(_TYPES[self.datatype][1], self.elements)))


def size_of(shape: Sequence[int]) -> int:
    """How many elements a shape holds."""
    return math.prod(shape)


def from_json(datatype: Any, shape: Sequence[int], data: Any) -> Tensor:
    """A tensor whose `data` came as JSON, nested or flat. Raises TensorError."""
    _known(datatype)
    flat: List[Any] = []
    _flatten(data, flat)
    if len(flat) != size_of(shape):
        raise TensorError(f"its shape {list(shape)} holds {size_of(shape)} elements and its data has {len(flat)}")
    return Tensor(datatype, shape, [_element(datatype, value) for value in flat])


def from_raw(datatype: Any, shape: Sequence[int], raw: bytes, *, as_array: bool) -> Tensor:
    """A tensor whose data came as bytes; a numpy array where one is wanted. Raises TensorError."""
    _known(datatype)
    count = size_of(shape)
    if datatype == "BYTES":
        return Tensor(datatype, shape, _strings(raw, count))
    needed = count * _SIZES[datatype]
    if len(raw) != needed:
        raise TensorError(f"{datatype} of shape {list(shape)} takes {needed} bytes and got {len(raw)}")
    numpy = sys.modules.get("numpy") if as_array else None
    if numpy is not None:
        dtype = numpy.dtype(_TYPES[datatype][0]).newbyteorder("<")
        return Tensor(datatype, shape, numpy.frombuffer(raw, dtype=dtype).reshape(shape))
    if datatype == "BOOL":
        return Tensor(datatype, shape, [byte != 0 for byte in raw])
    if datatype == "FP16":
        return Tensor(datatype, shape, list(struct.unpack(f"<{count}e", raw)))
    values = array.array(_TYPES[datatype][1])
    values.frombytes(raw)
    return Tensor(datatype, shape, _little(values).tolist())


def from_value(value: Any) -> Tensor:
    """The tensor of what a model returned; what is no regular array is one BYTES element of JSON.

    Raises ResultError where the value cannot be JSON either.
    """
    found = _from_array(value)
    if found is not None:
        return found
    if not isinstance(value, (bool, int, float, str, list, tuple)):
        value = json.loads(result.dumps(value))
    nested = isinstance(value, (list, tuple))
    shape = _shape(value) if nested else [1]
    flat: List[Any] = []
    _flatten(value, flat)
    datatype = _common(flat) if shape is not None else None
    if shape is None or datatype is None:
        return Tensor("BYTES", [1], [result.dumps(value)])
    return Tensor(datatype, shape, [float(item) for item in flat] if datatype == "FP64" else flat)


def datatype_of(dtype: str) -> Optional[str]:
    """The datatype of numpy's name of an element type; None where the protocol has none."""
    return _NAMES.get(dtype) if dtype != "object" else None


def _known(datatype: Any) -> None:
    if not isinstance(datatype, str) or datatype not in _TYPES:
        raise TensorError(f"the datatype {datatype!r:.40} is not known, there are {', '.join(_TYPES)}")


def _from_array(value: Any) -> Optional[Tensor]:
    dtype = getattr(value, "dtype", None)
    name = getattr(dtype, "name", None)
    if name is None or not hasattr(value, "reshape") or not hasattr(value, "astype"):
        return None  # a torch tensor has a dtype as well: it becomes lists by its tolist
    if getattr(dtype, "kind", "") in "US":
        return Tensor("BYTES", value.shape or [1], [str(item) for item in value.reshape(-1).tolist()])
    datatype = datatype_of(name)
    return None if datatype is None else Tensor(datatype, value.shape or [1], value)


def _element(datatype: str, value: Any) -> Any:
    kind = type(value)
    if datatype == "BYTES" and kind is str:
        return value
    if datatype == "BOOL" and (kind is bool or (kind is int and value in (0, 1))):
        return bool(value)
    if datatype in ("FP16", "FP32", "FP64") and kind in (int, float):
        return float(value)
    limits = _RANGES.get(datatype)
    if limits is not None and kind is int and limits[0] <= value <= limits[1]:
        return value
    raise TensorError(f"{value!r:.40} is no {datatype}")


def _flatten(value: Any, flat: List[Any]) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:
            _flatten(item, flat)
    else:
        flat.append(value)


def _nest(flat: Sequence[Any], shape: Sequence[int]) -> Any:
    if len(shape) <= 1:
        return list(flat)
    rows, step = shape[0], size_of(shape[1:])
    return [_nest(flat[row * step : (row + 1) * step], shape[1:]) for row in range(rows)]


def _shape(value: Any) -> Optional[List[int]]:
    """The shape of lists in lists, None where their lengths differ."""
    if not isinstance(value, (list, tuple)):
        return []
    inner = [_shape(item) for item in value]
    if not inner:
        return [0]
    first = inner[0]
    if first is None or any(shape != first for shape in inner[1:]):
        return None
    return [len(value), *first]


def _common(flat: Sequence[Any]) -> Optional[str]:
    kinds = {type(item) for item in flat}
    if not kinds or kinds in ({float}, {int, float}):
        return "FP64"
    if kinds == {bool}:
        return "BOOL"
    if kinds == {str}:
        return "BYTES"
    low, high = _RANGES["INT64"]
    return "INT64" if kinds == {int} and all(low <= item <= high for item in flat) else None


def _strings(raw: bytes, count: int) -> List[str]:
    elements: List[str] = []
    at = 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise TensorError("a BYTES element is cut short")
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4 + length
        if at > len(raw):
            raise TensorError("a BYTES element is cut short")
        try:
            elements.append(raw[at - length : at].decode("utf-8"))
        except UnicodeDecodeError:
            raise TensorError("a BYTES element is not UTF-8, which is what a str is read from") from None
    if len(elements) != count:
        raise TensorError(f"its shape holds {count} elements and its data has {len(elements)}")
    return elements


def _little(values: Any) -> Any:
    if sys.byteorder == "big":
        values.byteswap()
    return values
