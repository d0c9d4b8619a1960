"""Passages as sets of shingles (three words in a row), and which of them two passages must share to be alike.

Two sets with a Jaccard similarity of at least t share one of the first n - ceil(t n) + 1 elements of each, where n is
the number of its elements and both are in one order, whichever that is (prefix filtering: S. Chaudhuri, V. Ganti and
R. Kaushik 2006; R. Bayardo, Y. Ma and R. Srikant 2007). The rarest come first here, and one that occurs in a single
passage is shared with none: so few are left to compare, and no pair is missed.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from forage.types import Passage

WORDS = 3
"""Of a shingle."""
BLOCK = 1 << 13  # passages that are looked at together
_LETTERS = 1 << 23  # of them
_ROW, _COUNT, _HASH = 13, 8, 43  # bits of what is sorted: row in the block, passages that hold the shingle, its hash
_LOW = np.uint64(_COUNT + _HASH)
_MOST = (1 << _COUNT) - 1  # passages; more are not counted
_CACHE = 1 << 18  # words whose hashes are kept
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[^\W{_UNSPACED}]+|\S")

Shingles = frozenset[tuple[str, ...]]


def normalised(passage: Passage) -> str:
    """Title and text on a line each: case folded, Unicode composed (NFC), white space collapsed."""
    lines = (passage.title, passage.text)
    return "\n".join(" ".join(unicodedata.normalize("NFC", line.casefold()).split()) for line in lines)


def words(passage: Passage) -> list[str]:
    """The words of title and text, normalised. Every other sign is a word, and so is each letter of a script that is
    written without spaces."""
    return _WORD.findall(normalised(passage))


def shingles(passage: Passage) -> Shingles:
    """Every three words in a row; all words where there are no more than three."""
    found = words(passage)
    return frozenset(zip(found, found[1:], found[2:], strict=False)) or frozenset([tuple(found)])


def jaccard(one: Shingles, other: Shingles) -> float:
    """What both have in common, as a share of what either has."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


class RareShingles:
    """Finds the shingles by which passages can be alike. First every passage is counted, then each is asked.

    Args:
        near: least similarity, above 0 and up to 1.
        shingles: about how many there will be in all; a byte for each is taken, up to 256 MB. Counts that share a byte
            make more to compare, and change nothing else.
    """

    def __init__(self, near: float, shingles: int) -> None:
        self._near = near
        self._counts = np.zeros(1 << min(max(shingles.bit_length(), 16), 28), np.uint8)
        self._hashes = _Hashes()

    def count(self, passages: Iterable[Passage]) -> Iterator[int]:
        """Count them, a block at a time; yields how many were."""
        for block in _blocks(passages):
            places = np.sort(self._places(self._hashes.of(block)))
            first = _changes(places)
            times = np.diff(first, append=len(places))
            places = places[first]
            self._counts[places] = np.minimum(self._counts[places] + times, _MOST)
            yield len(block)

    def rare(
        self, passages: Iterable[Passage]
    ) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.int32]]]:
        """By blocks: [N] marks of shingles, [N] the row in the block of the passage that has it, and [P] how many
        shingles each passage has. Passages that are alike have a mark in common."""
        for block in _blocks(passages):
            hashes = self._hashes.of(block)
            counts = self._counts[self._places(hashes)].astype(np.uint64)
            low = hashes & np.uint64((1 << _HASH) - 1)
            marks = np.sort((hashes >> _LOW << _LOW) | (counts << np.uint64(_HASH)) | low)
            rows = (marks >> _LOW).astype(np.int32)
            sizes = np.bincount(rows, minlength=len(block)).astype(np.int32)
            marks &= (np.uint64(1) << _LOW) - np.uint64(1)
            kept = self._first(rows, sizes) & (marks >> np.uint64(_HASH) > 1)
            yield marks[kept], rows[kept], sizes

    def _first(self, rows: NDArray[np.int32], sizes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which are among the first n - ceil(near n) + 1 of their row."""
        starts = np.cumsum(sizes) - sizes
        needed = np.ceil(self._near * sizes - 1e-9).astype(np.int64)  # what rounding adds must not raise it
        found: NDArray[np.bool_] = np.arange(len(rows)) < (starts + sizes - needed + 1)[rows]
        return found

    def _places(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        return (hashes & np.uint64(len(self._counts) - 1)).astype(np.int32)


class _Hashes(dict[str, int]):
    """Word -> 64 bits of BLAKE2b, of words seen lately."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = self[word] = int.from_bytes(digest, "little")
        return number

    def of(self, block: list[Passage]) -> NDArray[np.uint64]:
        """[N] the row of a passage in the high 13 bits, and 51 bits of a shingle it has; each once, ascending."""
        numbers, lengths = array("Q"), []
        for passage in block:
            found = words(passage)
            numbers.extend(map(self.__getitem__, found))
            numbers.extend([0] * (WORDS - len(found)))
            lengths.append(max(len(found), WORDS))
        if len(self) > _CACHE:
            self.clear()
        flat, sizes = np.frombuffer(numbers, np.uint64), np.array(lengths)
        mixed = _mixed(flat[:-2] * _FACTORS[0] + flat[1:-1] * _FACTORS[1] + flat[2:] * _FACTORS[2])
        inside = np.ones(len(flat), np.bool_)
        for behind in range(1, WORDS):  # no shingle begins with the last words of a passage
            inside[np.cumsum(sizes) - behind] = False
        rows = np.repeat(np.arange(len(block), dtype=np.uint64), sizes - WORDS + 1)
        hashes = np.sort((rows << np.uint64(64 - _ROW)) | (mixed[inside[: len(mixed)]] >> np.uint64(_ROW)))
        return hashes[_changes(hashes)]


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit in, every bit out (the finalizer of MurmurHash3 by A. Appleby, with other shifts)."""
    values = (values ^ (values >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return values ^ (values >> np.uint64(32))


def _changes(values: NDArray[np.generic]) -> NDArray[np.int64]:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])) if len(values) else np.empty(0, np.int64)


def _blocks(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    block: list[Passage] = []
    letters = 0
    for passage in passages:
        block.append(passage)
        letters += len(passage.title) + len(passage.text)
        if len(block) == BLOCK or letters >= _LETTERS:
            yield block
            block, letters = [], 0
    if block:
        yield block
