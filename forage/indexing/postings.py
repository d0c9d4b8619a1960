"""Runs merged into the arrays that BM25 is asked from: for each word its passages, and what it adds to their scores.

They are those of bm25s (CSC, int32 rows and float32 impacts), with Lucene's variant of the formula: a word that stands
tf times in a passage of length dl adds

    log(1 + (P - df + 1/2) / (df + 1/2)) * tf / (tf + k1 * (1 - b + b * dl / mean dl))

where df of the P passages hold it (Kamphuis et al. 2020, "Which BM25 Do You Mean?"; stop words don't count in dl).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forage.errors import DataError, IndexFolderError
from forage.indexing.runs import Run

NAMES = ("words", "starts", "tops", "rows", "impacts")
BLOCK = 2_000_000
"""Pairs of word and passage that are merged at once; about 60 bytes each."""
Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Postings:
    """V words, N pairs of a word and a passage that holds it."""

    words: NDArray[np.uint64]
    """[2, V] `word_keys`, ascending"""
    starts: NDArray[np.int64]
    """[V + 1] where the passages of each word begin"""
    tops: NDArray[np.float32]
    """[V] the largest impact of each word"""
    rows: NDArray[np.int32]
    """[N] passages that hold the word, ascending"""
    impacts: NDArray[np.float32]
    """[N] what the word adds to their scores"""


class Merge:
    """Merges runs, which together are the corpus, in order.

    Args:
        parts: gives each run anew, so that none has to stay in memory.
        k1: how slowly repetitions of a word stop counting.
        b: how far long passages are held back.

    Raises:
        DataError: no passage holds a word.
    """

    def __init__(self, parts: Sequence[Callable[[], Run]], *, k1: float, b: float) -> None:
        self._parts = parts
        self.words, self._sizes = _vocabulary(parts)
        if not len(self._sizes):
            raise DataError("no passage of the corpus holds a word that is not a stopword")
        self.starts = np.concatenate([[0], np.cumsum(self._sizes)])
        lengths = [part().lengths for part in parts]
        self._firsts = np.cumsum([0, *map(len, lengths)])
        joined = np.concatenate(lengths)
        self._norms = k1 * ((1 - b) + b * joined / joined.mean())
        self._idf = _idf(self._sizes, len(joined))

    def __iter__(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]]:
        """Rows and impacts of consecutive words, and the largest impact of each."""
        low, words = 0, len(self._sizes)
        while low < words:
            high = max(low + 1, int(np.searchsorted(self.starts, self.starts[low] + BLOCK, side="right")) - 1)
            high = min(high, words)
            rows, counts = self._gathered(low, high)
            tf = counts / (self._norms[rows] + counts)
            impacts = (np.repeat(self._idf[low:high], self._sizes[low:high]) * tf).astype(np.float32)
            yield rows, impacts, np.maximum.reduceat(impacts, self.starts[low:high] - self.starts[low])
            low = high

    def _gathered(self, low: int, high: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Rows and counts of the words from `low` to `high`, of all runs."""
        begin = self.starts[low]
        free = self.starts[low:high] - begin
        total = int(self.starts[high] - begin)
        rows, counts = np.empty(total, np.int32), np.empty(total)
        keys = self.words[0, low:high]
        for first, part in zip(self._firsts.tolist(), self._parts, strict=False):
            run = part()
            a, z = np.searchsorted(run.words[0], [keys[0], keys[-1]], side="left").tolist()
            z += int(z < len(run.sizes) and run.words[0, z] == keys[-1])
            sizes = np.asarray(run.sizes[a:z], np.int64)
            skipped = int(run.sizes[:a].sum(dtype=np.int64))
            span = slice(skipped, skipped + int(sizes.sum()))
            word = np.searchsorted(keys, run.words[0, a:z])
            to = np.repeat(free[word] - (np.cumsum(sizes) - sizes), sizes) + np.arange(span.stop - span.start)
            rows[to] = run.rows[span] + np.int32(first)
            counts[to] = run.counts[span]
            free[word] += sizes
        return rows, counts


def in_memory(parts: Sequence[Run], *, k1: float, b: float) -> Postings:
    """Merge runs that are in memory."""
    merge = Merge([lambda part=part: part for part in parts], k1=k1, b=b)  # type: ignore[misc]
    rows, impacts, tops = zip(*merge, strict=True)
    return Postings(merge.words, merge.starts, *map(np.concatenate, (tops, rows, impacts)))


def on_disk(parts: Sequence[Callable[[], Run]], folder: Path, report: Report, *, k1: float, b: float) -> None:
    """Merge runs into `bm25.*.npy` of a folder."""
    merge = Merge(parts, k1=k1, b=b)
    total, tops = int(merge.starts[-1]), []
    np.save(_file(folder, "words"), merge.words)
    np.save(_file(folder, "starts"), merge.starts)
    with _file(folder, "rows").open("wb") as rows_file, _file(folder, "impacts").open("wb") as impacts_file:
        for file, dtype in ((rows_file, np.int32), (impacts_file, np.float32)):
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (total,)}
            np.lib.format.write_array_header_1_0(file, header)
        done = 0
        for rows, impacts, largest in merge:
            rows.tofile(rows_file)
            impacts.tofile(impacts_file)
            tops.append(largest)
            done += len(rows)
            report(done, total)
    np.save(_file(folder, "tops"), np.concatenate(tops))


def open_postings(folder: Path) -> Postings:
    """The arrays of a folder by memory map.

    Raises:
        IndexFolderError: one is missing or broken, or they don't belong together.
    """
    try:
        # Plain views: numpy's own class for mapped arrays is slow to slice.
        found = Postings(*(np.load(_file(folder, name), mmap_mode="r").view(np.ndarray) for name in NAMES))
    except (OSError, ValueError, EOFError) as error:
        raise IndexFolderError(f"the BM25 arrays of {folder} can't be read: {error}; build the index again") from error
    pairs = int(found.starts[-1])
    if len(found.starts) != found.words.shape[1] + 1 or not len(found.rows) == len(found.impacts) == pairs:
        raise IndexFolderError(f"the BM25 arrays of {folder} don't belong together: build the index again")
    return found


def _file(folder: Path, name: str) -> Path:
    return folder / f"bm25.{name}.npy"


def _vocabulary(parts: Sequence[Callable[[], Run]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The keys of all words, and how many passages hold each."""
    words, sizes = np.empty((2, 0), np.uint64), np.empty(0, np.int64)
    for part in parts:
        run = part()
        both = np.concatenate([words, run.words], axis=1)
        order = np.argsort(both[0], kind="stable")
        both = both[:, order]
        new = np.concatenate([[True], both[0, 1:] != both[0, :-1]])[: both.shape[1]]
        if (both[1, 1:][~new[1:]] != both[1, :-1][~new[1:]]).any():
            raise DataError("two different words of the corpus have the same key: set another stemmer")
        joined = np.concatenate([sizes, run.sizes])[order]
        first = np.flatnonzero(new)
        words, sizes = both[:, first], np.add.reduceat(joined, first) if len(first) else sizes
    return np.ascontiguousarray(words), sizes


def _idf(sizes: NDArray[np.int64], passages: int) -> NDArray[np.float64]:
    """By word, rounded to float32 as bm25s does."""
    different, place = np.unique(sizes, return_inverse=True)
    idf = [math.log(1 + (passages - size + 0.5) / (size + 0.5)) for size in different.tolist()]
    return np.array(idf, np.float32).astype(np.float64)[place]
