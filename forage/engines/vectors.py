"""What compiled kernels are made of: floats taken many at a time, and memory asked for before it is needed."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import intrinsic

FLOAT = np.float32
SUMS = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be taken in another order, the same one each time; not-a-number stays what it is."""
LOG2_E = FLOAT(1 / math.log(2))
P0, P1, P2, P3, P4, P5, P6 = (FLOAT(math.log(2) ** n / math.factorial(n)) for n in range(7))
"""Taylor's coefficients of 2^x, for |x| <= 1/2."""
VECTORS = 32
"""Floats that a vectorised loop takes at once, where the compiler unrolls it most; what is left over is slow."""
LINE = 16
"""Floats in a cache line."""
LEAST, MOST = FLOAT(-100), FLOAT(126)
"""Exponents beyond which nothing changes; products with numbers below 2^-126 would be slow."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile as numpy would compute, without a check of each division.

    The result is kept for the next run, beside the source or in the user's cache, where one of them can be written to,
    until a file of the source's folder changes.
    """
    dispatcher = numba.njit(fastmath=SUMS, error_model="numpy", nogil=True)(function)
    with suppress(RuntimeError):
        dispatcher._cache = _kept(function)
    return dispatcher


def _kept(function: Callable[..., Any]) -> Any:
    """Machine code on disk as numba keeps it, but of all that is compiled into a function.

    Numba asks whether the function's own file is what it was. Functions and constants of the files beside it are in the
    machine code, too.

    Raises:
        RuntimeError: nothing can be written.
    """
    kept = FunctionCache(function)
    own, folder = kept._impl.locator.get_source_stamp(), Path(inspect.getfile(function)).parent
    kept._cache_file = IndexDataCacheFile(kept.cache_path, kept._impl.filename_base, (own, _digest(folder)))
    return kept


@cache
def _digest(folder: Path) -> str:
    """Of all Python in a folder, as it was when it was first asked for, which is when it is imported."""
    files = ((path.name, path.read_bytes()) for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(repr(list(files)).encode()).hexdigest()


def inlined(function: Callable[..., Any]) -> Any:
    """For what compiled functions call: it becomes part of each of them.

    Called functions that are compiled by themselves are put together otherwise in the process that compiles them than
    in those that find them in the cache, and then differ in the last bits.
    """
    return numba.njit(fastmath=SUMS, error_model="numpy", inline="always")(function)


@inlined
def exp(x: np.float32) -> np.float32:
    """e^x, between 2^-100 and 2^126, without a call, so that loops over it become vectors.

    Relative error below 1e-7 |x| + 2e-7.
    """
    power = x * LOG2_E
    if power < LEAST:
        power = LEAST
    if power > MOST:
        power = MOST
    exponent = np.int32(power + FLOAT(127.5))  # 127 more than the nearest whole number, as a float32 stores it
    rest = power - FLOAT(exponent - np.int32(127))  # a sum of floats would be taken in the coarse order
    fraction = P0 + rest * (P1 + rest * (P2 + rest * (P3 + rest * (P4 + rest * (P5 + rest * P6)))))
    return fraction * np.int32(exponent << np.int32(23)).view(FLOAT)


@inlined
def largest(numbers: np.ndarray, lanes: np.ndarray) -> np.float32:
    """The largest of them, numbers that are none left out; `lanes` [VECTORS] is room to compare many at a time."""
    whole = len(numbers) // VECTORS * VECTORS
    for i in range(VECTORS):
        lanes[i] = -np.inf
    for j in range(0, whole, VECTORS):
        part = numbers[j : j + VECTORS]
        for i in range(VECTORS):
            lanes[i] = part[i] if part[i] > lanes[i] else lanes[i]
    most = FLOAT(-np.inf)
    for i in range(VECTORS):
        most = max(most, lanes[i])
    for j in range(whole, len(numbers)):
        most = max(most, numbers[j])
    return most


@intrinsic
def _prefetch(typing: Any, numbers: Any, place: Any) -> Any:  # noqa: ARG001 (numba's signature)
    """Asks for the cache line of an array's element, and goes on without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [array.data.type, i32, i32, i32])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read_into_nearest_data_cache = [ir.Constant(i32, number) for number in (0, 3, 1)]
        builder.call(prefetch, [builder.gep(array.data, [arguments[1]]), *read_into_nearest_data_cache])
        return context.get_dummy_value()

    return types.void(numbers, place), generate


@inlined
def fetch(numbers: np.ndarray, first: int, end: int) -> None:
    """Have the numbers from `first` to `end`, all axes in one, brought into the nearest cache while work goes on."""
    for i in range(first, end, LINE):
        _prefetch(numbers, i)
