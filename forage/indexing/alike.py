"""Which passages are like an earlier one. No pair is missed: it follows from the passages and the threshold alone."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from forage.indexing.ids import mark
from forage.indexing.shingles import RareShingles, jaccard, normalised, shingles
from forage.indexing.store import PassageStore

Progress = Callable[[str, int, int], None]
Number = TypeVar("Number", bound=np.generic)
_READ = 1 << 16  # passages between two calls of the progress
_LATELY = 1 << 12  # passages whose shingles are kept


@dataclass(frozen=True, slots=True)
class Match:
    """Rows of a passage to leave out and of the first one it is like, and how much."""

    row: int
    kept: int
    similarity: float


def equal_passages(store: PassageStore, progress: Progress) -> Iterator[Match]:
    """Passages whose title and text are, normalised, those of an earlier one. Memory: 40 bytes a passage."""
    return _matches(_texts(store, progress), 1.0, _Equal(store))


def near_passages(store: PassageStore, near: float, progress: Progress) -> Iterator[Match]:
    """Passages with at least this Jaccard similarity of shingles to an earlier one that is not told itself.

    Memory: up to 500 MB, 4 bytes a passage, and 40 bytes for each of its rare shingles that another passage may have,
    too: of those that come first (`RareShingles`), a share of 1 - near.
    """
    return _matches(_rare(store, near, progress), near, _Alike(store, near))


class _Marked(NamedTuple):
    """What passages have in common with others, if anything. N marks of P passages."""

    marks: NDArray[np.uint64]
    """[N] in the order of rows"""
    rows: NDArray[np.int32]
    """[N] the passage that has it"""
    sizes: NDArray[np.int32]
    """[P] of each passage's set"""


def _texts(store: PassageStore, progress: Progress) -> _Marked:
    """One mark a passage: of all it says."""
    marks = array("Q")
    for row, passage in enumerate(store, start=1):
        marks.append(mark(normalised(passage)))
        if row % _READ == 0:
            progress("passages compared", row, len(store))
    rows = np.arange(len(store), dtype=np.int32)
    return _Marked(np.frombuffer(marks, np.uint64), rows, np.ones(len(store), np.int32))


def _rare(store: PassageStore, near: float, progress: Progress) -> _Marked:
    """The marks of each passage's rare shingles."""
    rare, marks, rows, sizes, done = RareShingles(near, store.size // 6), [], [], [], 0
    for count in rare.count(store):
        done += count
        progress("passages counted by shingles", done, len(store))
    done = 0
    for of_block, in_block, of_each in rare.rare(store):
        marks.append(of_block)
        rows.append(in_block + np.int32(done))
        sizes.append(of_each)
        done += len(of_each)
        progress("passages compared", done, len(store))
    return _Marked(_joined(marks), _joined(rows), _joined(sizes))


def _joined(parts: list[NDArray[Number]]) -> NDArray[Number]:
    """One array, in place of the parts."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _matches(marked: _Marked, near: float, alike: Callable[[int, int], float]) -> Iterator[Match]:
    """Go through the passages in order; each is compared with those kept before it that share a mark."""
    rows, starts, later = _shared(marked)
    sizes, kept = marked.sizes, np.ones(len(marked.sizes), np.bool_)
    del marked
    bounds = np.flatnonzero(np.diff(rows[later], prepend=-1, append=-1))
    for low, high in pairwise(bounds.tolist()):
        places = later[low:high].tolist()
        row = int(rows[places[0]])
        others = np.unique(np.concatenate([rows[starts[place] : place] for place in places]))
        fits = (sizes[others] >= near * sizes[row] - 1e-9) & (near * sizes[others] - 1e-9 <= sizes[row])
        for other in others[kept[others] & fits].tolist():
            if similarity := alike(row, other):
                kept[row] = False
                yield Match(row, other, similarity)
                break


def _shared(marked: _Marked) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Rows sorted by mark, where in them each one's mark begins, and the places of those that are not the first with
    their mark, by row."""
    order = np.argsort(marked.marks, kind="stable")
    marks, rows = marked.marks[order], marked.rows[order]
    first, last = np.ones(len(marks), np.bool_), np.ones(len(marks), np.bool_)
    first[1:] = last[:-1] = marks[1:] != marks[:-1]
    shared = ~(first & last)  # most marks have one passage
    rows, first = rows[shared], first[shared]
    starts = np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
    later = np.flatnonzero(~first)
    return rows, starts, later[np.argsort(rows[later], kind="stable")]


class _Equal:
    """1.0 where two passages are equal, normalised."""

    def __init__(self, store: PassageStore) -> None:
        self._store = store

    def __call__(self, row: int, other: int) -> float:
        return float(normalised(self._store[row]) == normalised(self._store[other]))


class _Alike:
    """The similarity of two passages; 0 where it is below the least."""

    def __init__(self, store: PassageStore, near: float) -> None:
        self._near = near
        self._shingles = lru_cache(_LATELY)(lambda row: shingles(store[row]))

    def __call__(self, row: int, other: int) -> float:
        similarity = jaccard(self._shingles(row), self._shingles(other))
        return similarity if similarity >= self._near else 0.0
