"""One vector a passage in float16, in a file that is mapped: encoded shard by shard, or brought."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from forage.errors import DataError, IndexFolderError
from forage.indexing.build import Progress
from forage.indexing.encoding import Encoding, NamedEncoder
from forage.indexing.store import PassageStore

VECTORS = "dense.vectors.npy"
_SHARDS, _ENCODER = ".dense.shards", ".dense.encoder.json"
SHARD = 2048
"""Passages of a shard: what an interruption costs at most, and within which texts are sorted by length."""
_HOLDS = "holds {} of {}, and the passages need floats [{}, {}]: one row for each passage, in their order"
_BLOCK = 65_536  # rows that are copied at once
Half = NDArray[np.float16]


def write_vectors(
    encoder: NamedEncoder, encoding: Encoding, store: PassageStore, folder: Path, progress: Progress, shard: int
) -> None:
    """Encode all passages into `dense.vectors.npy`; finished shards of an interrupted call are taken as they are.

    Raises:
        DataError: a vector is not finite, or too large for float16.
    """
    home = folder / _SHARDS
    home.mkdir(exist_ok=True)
    for start in range(0, len(store), shard):
        path = home / f"{start:012d}.npy"
        end = min(start + shard, len(store))
        if not path.exists():
            texts = [encoding.text(passage) for passage in store.read(start, end)]
            _save(path, _halved(encoder.passages(texts), encoder.name))
        progress("passages encoded", end, len(store))
    parts = (np.load(home / f"{start:012d}.npy", mmap_mode="r") for start in range(0, len(store), shard))
    _write(folder / VECTORS, parts, (len(store), encoding.dimensions))
    shutil.rmtree(home)


def check_encoder(folder: Path, encoding: Encoding) -> None:
    """Note the encoder in a folder that is begun, and refuse one that was begun with another.

    Raises:
        IndexFolderError: it was.
    """
    path, said = folder / _ENCODER, msgspec.json.encode(encoding)
    if not path.exists():
        beside = path.with_name(f"{path.name}.part")
        beside.write_bytes(said)
        beside.replace(path)
    elif path.read_bytes() != said:
        raise IndexFolderError(
            f"{folder} was begun with another encoder, or the model has changed since: remove the folder"
        )


def brought_vectors(source: Path, dimensions: int) -> NDArray[Any]:
    """Vectors that were made elsewhere [rows, dimensions], mapped.

    Raises:
        DataError: it is no such file, or has another shape.
    """
    try:
        given = np.load(source, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{source} holds no vectors that can be read: {error}") from error
    if not isinstance(given, np.ndarray):
        raise DataError(f"{source} holds no vectors that can be read: it is an archive of arrays; save one as .npy")
    if given.ndim != 2 or given.shape[1] != dimensions or given.dtype.kind != "f":
        raise DataError(f"{source} {_HOLDS.format(list(given.shape), given.dtype, 'passages', dimensions)}")
    return given


def copy_vectors(source: Path, folder: Path, passages: int, dimensions: int) -> None:
    """Vectors that were made elsewhere, checked, into `dense.vectors.npy`.

    Raises:
        DataError: see `brought_vectors`; or there is not one for each passage, or a row is zero or not finite.
    """
    given = brought_vectors(source, dimensions)
    if len(given) != passages:
        raise DataError(f"{source} {_HOLDS.format(list(given.shape), given.dtype, passages, dimensions)}")
    _write(folder / VECTORS, _checked_blocks(given, source), given.shape)


def open_vectors(folder: Path, passages: int, dimensions: int) -> Half:
    """The vectors of an index [passages, dimensions], mapped.

    Raises:
        IndexFolderError: they are missing, broken, or of another shape.
    """
    path = folder / VECTORS
    try:
        # Copy on write: pages are shared as long as nobody writes, and PyTorch takes the array without complaint.
        found = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError) as error:
        raise IndexFolderError(f"{path} can't be read ({error}): build the index again") from error
    if found.shape != (passages, dimensions) or found.dtype != np.float16:
        raise IndexFolderError(
            f"{path} holds {list(found.shape)} of {found.dtype}, not [{passages}, {dimensions}] of float16: "
            "build the index again"
        )
    mapped: Half = found.view(np.ndarray)
    return mapped


def longest(vectors: Half) -> float:
    """The largest Euclidean length of a row."""
    blocks = (block.astype(np.float32) for block in blocks_of(vectors))
    return max(float(np.sqrt(np.einsum("nd,nd->n", block, block).max())) for block in blocks)


def blocks_of(vectors: NDArray[Any], rows: int = _BLOCK) -> Iterator[NDArray[Any]]:
    """The rows in order, many at a time."""
    for start in range(0, len(vectors), rows):
        yield vectors[start : start + rows]


def _checked_blocks(given: NDArray[Any], source: Path) -> Iterator[Half]:
    for number, block in enumerate(blocks_of(given)):
        zero = np.flatnonzero(~block.any(1))
        if len(zero):
            raise DataError(f"{source}: row {number * _BLOCK + int(zero[0])} is all zeros, and no vector of a passage")
        yield _halved(block, str(source))


def _halved(vectors: NDArray[Any], source: str) -> Half:
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])
        raise DataError(f"{source}: a vector holds a number that is not finite (row {row} of its block)")
    if np.abs(vectors).max(initial=0) > np.finfo(np.float16).max:
        raise DataError(f"{source}: a vector holds a number that is too large for float16")
    return vectors.astype(np.float16)


def _save(path: Path, array: Half) -> None:
    _write(path, [array], array.shape)


def _write(path: Path, parts: Any, shape: tuple[int, ...]) -> None:
    beside = path.with_name(f".{path.name}.part")
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
    with beside.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            part.tofile(file)
    beside.replace(path)
