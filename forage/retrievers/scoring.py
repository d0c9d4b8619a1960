"""The best passages of a query, from the arrays of an index."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forage.indexing.analyser import Analyser
from forage.indexing.postings import Postings
from forage.indexing.runs import word_keys

_MANY = 50  # from here on, sorting the hits is cheaper than one pass over all scores for each of the k
_WORDS = 32  # words of a query up to which looking for a short way pays
_REMEMBERED = 100_000  # words whose numbers are kept


class Scorer:
    """Exact BM25 scores of queries, the analyser being the one that the index was built with.

    Args:
        postings: the arrays of the index.
        analyser: how queries are read.
        passages: how many there are.
        prune_from: passages from which on postings are skipped (`compiled.best`, where numba is installed) that can't
            change the result.
        window: passages whose sums are worked on at once then; 64 KB stay in a near cache.
    """

    def __init__(
        self, postings: Postings, analyser: Analyser, passages: int, *, prune_from: int = 20_000, window: int = 16_384
    ) -> None:
        self._postings = postings
        self._analyser = analyser
        self._passages = passages
        self._starts = postings.starts
        self._keys, self._checks = postings.words
        self._room = _Room(min(passages, window))
        self._best = _compiled() if passages >= prune_from else None
        self._numbers: dict[str, int] = {}  # raw word -> number, -1 for what is left out or unknown

    def best(self, query: str, k: int) -> list[tuple[int, float]]:
        """(row, score) of the k best passages that hold a word of the query, best first, ties by row."""
        words = self.known(query)
        if self._best and k <= _MANY and 0 < len(words) <= _WORDS:
            return self._pruned(words, k)
        scores = np.zeros(self._passages, np.float32)
        for word in words:
            span = slice(self._starts[word], self._starts[word + 1])
            np.add.at(scores, self._postings.rows[span], self._postings.impacts[span])
        return top_k(scores, k)

    def _pruned(self, words: list[int], k: int) -> list[tuple[int, float]]:
        held, room = self._postings, self._room
        query = np.array(words)
        assert self._best
        rows, scores = self._best(held.rows, held.impacts, held.starts, held.tops, query, k, room.sums, room.seen)
        return list(zip(rows.tolist(), scores.tolist(), strict=True))

    def known(self, query: str) -> list[int]:
        """The words of a query that the corpus holds, in order, repetitions included."""
        found, numbers = self._analyser.raw(query), self._numbers
        if new := [word for word in dict.fromkeys(found) if word not in numbers]:
            if len(numbers) > _REMEMBERED:
                numbers = self._numbers = {}  # another thread may still read the old one
                new = list(dict.fromkeys(found))
            numbers.update(zip(new, self._look_up(new), strict=True))
        return [number for word in found if (number := numbers[word]) >= 0]

    def _look_up(self, raw: list[str]) -> list[int]:
        stems, left_out = map(self._analyser.stem, raw), self._analyser.left_out
        keys, checks = word_keys(stems)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        same = (self._keys[places] == keys) & (self._checks[places] == checks)
        found = np.where(same, places, -1).tolist()
        return [-1 if word in left_out else number for word, number in zip(raw, found, strict=True)]


class _Room(threading.local):
    """Working arrays of each thread."""

    def __init__(self, window: int) -> None:
        self.sums = np.zeros(window, np.float32)
        self.seen = np.empty(window, np.int32)


def _compiled() -> Callable[..., Any] | None:
    try:
        from forage.retrievers.compiled import best
    except ImportError:  # numba is an extra
        return None
    found: Callable[..., Any] = best
    return found


def top_k(scores: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
    """(row, score) of the k best scores above 0, best first, ties by row. Changes `scores`."""
    if k > _MANY:
        hits = np.flatnonzero(scores > 0)
        hits = hits[np.argsort(-scores[hits], kind="stable")[:k]]
        return list(zip(hits.tolist(), scores[hits].tolist(), strict=True))
    best = []
    for _ in range(k):
        row = int(scores.argmax())
        score = float(scores[row])
        if score <= 0:
            break
        best.append((row, score))
        scores[row] = 0
    return best
