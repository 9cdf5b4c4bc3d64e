"""Thread counts of numeric libraries: pinned to one while a zygote imports, restored by call in what it forks.

The variables count only while a library loads; afterwards nothing but its own function changes the number. Those of
OpenMP, and of MKL which stands on it, are not pinned: their functions change the number for the thread that calls them
only, and each thread that a worker starts later would have one for ever. They start no thread before they are used.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from typing import Any, Callable, Dict, List, Mapping, Optional

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Not …_64_: that is the Fortran name in a 64_ build, takes a pointer, and crashes on a number.
_OPENBLAS = [f"{prefix}openblas_set_num_threads{suffix}" for prefix in ("", "scipy_") for suffix in ("", "64_", "_64")]
_SYMBOLS = {
    "openblas": _OPENBLAS,
    "mkl_rt": ["MKL_Set_Num_Threads"],
    "blis": ["bli_thread_set_num_threads"],
    "libgomp": ["omp_set_num_threads"],
    "libomp": ["omp_set_num_threads"],
    "libiomp": ["omp_set_num_threads"],
}
_LIBRARY = re.compile(r"(/\S*(?:openblas|mkl_rt|blis|libgomp|libomp|libiomp)[^/\n]*\.so[^/\n]*)$", re.MULTILINE)

Setter = Callable[[int], Any]


def pinned(environment: Mapping[str, str], cpus: Optional[float]) -> Dict[str, str]:
    """What the variables are while a zygote imports. environment: the model's; cpus: its limit, in cores."""
    free = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(count(environment, cpus)))
    return {**dict.fromkeys(VARIABLES, "1"), **free}


def setters() -> List[Setter]:
    """The functions that set the thread count of each library loaded here."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        paths = sorted(set(_LIBRARY.findall(file.read())))
    found: List[Setter] = []
    for path in paths:
        try:
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:
            continue  # mapped as a file, not loaded as a library
        name = os.path.basename(path)
        symbols = [symbol for part, symbols in _SYMBOLS.items() if part in name for symbol in symbols]
        found += [getattr(library, symbol) for symbol in symbols if hasattr(library, symbol)]
    return found


def pin() -> None:
    """Have this thread compute alone: threads that a library starts now would be missing in every fork."""
    for setter in setters():
        setter(1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def restore(found: List[Setter], environment: Mapping[str, str], cpus: Optional[float]) -> None:
    """Give this process the threads that it would have had without the pin. cpus: the model's limit, in cores."""
    for setter in found:
        setter(count(environment, cpus))
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != count(environment, cpus):
        torch.set_num_threads(count(environment, cpus))  # which starts threads that a plain start does not have


def count(environment: Mapping[str, str], cpus: Optional[float]) -> int:
    """What the model's environment says, else its limit, else the cores it may run on."""
    said = environment.get("OMP_NUM_THREADS", "").split(",")[0]
    if said.isdecimal() and int(said) > 0:
        return int(said)
    usable = len(os.sched_getaffinity(0))
    return usable if cpus is None else max(1, min(usable, math.ceil(cpus)))
