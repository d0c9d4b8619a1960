"""Passages to counted words, a part of the corpus at a time: what BM25 is made from."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forage.indexing.analyser import Analyser
from forage.types import Passage

TOKENS = 8_000_000
"""Words that are counted together."""
BYTES = 42
"""Memory that each of them needs at the peak."""


@dataclass(frozen=True, slots=True)
class Run:
    """The words of consecutive passages. P passages, V words, N pairs of a word and a passage that holds it."""

    words: NDArray[np.uint64]
    """[2, V] `word_keys`, ascending"""
    sizes: NDArray[np.int32]
    """[V] passages that hold the word"""
    rows: NDArray[np.int32]
    """[N] which, counted from the run's first; by word, then ascending"""
    counts: NDArray[np.int32]
    """[N] how often"""
    lengths: NDArray[np.int32]
    """[P] words of each passage"""

    def save(self, folder: Path) -> None:
        """Into a folder, which appears once it is whole."""
        beside = folder.with_name(f"{folder.name}.part")
        beside.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(beside / f"{field.name}.npy", getattr(self, field.name))
        beside.rename(folder)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Arrays by memory map."""
        return cls(*(np.load(folder / f"{field.name}.npy", mmap_mode="r") for field in fields(cls)))


def runs(passages: Iterable[Passage], analyser: Analyser, tokens: int = TOKENS) -> Iterator[Run]:
    """Count the passages in runs of about `tokens` words, stop words included."""
    words = _Words(analyser)
    numbers, ends = array("i"), array("q")
    read, text, number = analyser.raw, analyser.text, words.__getitem__
    for passage in passages:
        numbers.extend(map(number, read(text(passage.title, passage.text))))
        ends.append(len(numbers))
        if len(numbers) >= tokens:
            yield _run(words, numbers, ends)
            words.clear()
            words.stems.clear()
            numbers, ends = array("i"), array("q")
    if ends:
        yield _run(words, numbers, ends)


class _Words(dict[str, int]):
    """Word -> number of its stem, -1 for what is left out. Each word is stemmed once."""

    def __init__(self, analyser: Analyser) -> None:
        super().__init__()
        self.stems: dict[str, int] = {}
        self._analyser = analyser

    def __missing__(self, word: str) -> int:
        stems = self.stems
        left_out = word in self._analyser.left_out
        number = self[word] = -1 if left_out else stems.setdefault(self._analyser.stem(word), len(stems))
        return number


def word_keys(words: Iterable[str]) -> NDArray[np.uint64]:
    """[2, V]: 128 bits that stand for each word. Two of a million words share them with a chance of 10^-27."""
    digests = [hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=16).digest() for word in words]
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2).T.astype(np.uint64)


def _run(words: _Words, tokens: array[int], ends: array[int]) -> Run:
    keys = word_keys(words.stems)
    order = np.argsort(keys[0])
    renumbered = np.empty(len(order), np.int64)
    renumbered[order] = np.arange(len(order))
    numbers: NDArray[Any] = np.frombuffer(tokens, np.int32) if len(tokens) else np.empty(0, np.int32)
    kept = numbers >= 0
    bounds: NDArray[np.int64] = np.concatenate([[0], np.frombuffer(ends, np.int64)])
    spans = bounds[1:] - bounds[:-1]
    rows = np.repeat(np.arange(len(spans), dtype=np.int32), spans)[kept]
    pairs = renumbered[numbers[kept]] << 32
    pairs |= rows
    lengths = np.bincount(rows, minlength=len(spans)).astype(np.int32)
    del rows, kept
    pairs.sort()
    first = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]])) if len(pairs) else np.empty(0, np.int64)
    counts = np.diff(first, append=len(pairs)).astype(np.int32)
    pairs = pairs[first]
    return Run(
        words=np.ascontiguousarray(keys[:, order]),
        sizes=np.bincount(pairs >> 32, minlength=len(order)).astype(np.int32),
        rows=(pairs & 0xFFFFFFFF).astype(np.int32),
        counts=counts,
        lengths=lengths,
    )
