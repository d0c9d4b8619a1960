"""Rankings of the same passages to one. Everything is done with rows; passages are read from disk in the end only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ranking = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows of passages, best first, and their scores."""
_Scores = NDArray[np.float64]
RRF_CONSTANT = 60.0


def as_ranking(found: Sequence[tuple[int, float]]) -> Ranking:
    """(row, score) pairs as a ranking."""
    rows, scores = zip(*found, strict=True) if found else ((), ())
    return np.array(rows, np.int64), np.array(scores, np.float32)


def reciprocal_ranks(rankings: Sequence[Ranking], k: int) -> list[tuple[int, float]]:
    """Reciprocal rank fusion: a passage's score is the sum of 1 / (60 + rank) over the rankings that have it.

    Cormack, Clarke and Büttcher, SIGIR 2009; ranks begin at 1.

    Args:
        rankings: of one query, as deep as they are to be read. Of a row that is there twice, the first place counts.
        k: how many passages.

    Returns:
        (row, score), best first; ties go to the earlier row.
    """
    return _fused([(rows, 1 / (RRF_CONSTANT + 1 + np.arange(len(rows))), 0.0) for rows, _ in rankings], k)


def weighted_scores(
    lexical: Ranking, dense: Ranking, k: int, *, depth: int, lexical_weight: float
) -> list[tuple[int, float]]:
    """Score fusion: lexical_weight x (BM25 / the query's best BM25) + (1 - lexical_weight) x cosine.

    Inner products of vectors that are longer than 1 are divided by the query's best, where that is above 1.

    A passage that only one ranking has gets from the other what the last one there has, which is the most it can be;
    of BM25 it gets 0 where that ranking has fewer than `depth`, for then it holds no word of the query. Where one
    ranking is empty, the other's scores stand.

    Args:
        lexical: scores of BM25, above 0.
        dense: cosines, or inner products.
        k: how many passages.
        depth: how many each ranking was asked for.
        lexical_weight: from 0 (the cosine alone) to 1.

    Returns:
        (row, score), best first; ties go to the earlier row.
    """
    (words, impacts), (near, products) = lexical, dense
    if not len(words) or not len(near):
        lexical_weight = float(len(words) > 0)
    by_word = lexical_weight * (impacts.astype(np.float64) / impacts.max(initial=0.0))
    by_meaning = (1 - lexical_weight) * (products.astype(np.float64) / products.max(initial=1.0))
    least_word = by_word[-1] if 0 < len(words) >= depth else 0.0
    least_meaning = by_meaning[-1] if len(near) else 0.0
    return _fused([(words, by_word, least_word), (near, by_meaning, least_meaning)], k)


def _fused(parts: Sequence[tuple[NDArray[np.int64], _Scores, float]], k: int) -> list[tuple[int, float]]:
    """The k rows with the largest sum over parts of (rows, what each adds, what it adds to all others)."""
    rows = np.unique(np.concatenate([part[0] for part in parts]))
    totals = np.zeros(len(rows))
    for own, adds, otherwise in parts:
        here, first = np.unique(own, return_index=True)
        share = np.full(len(rows), otherwise)
        share[np.searchsorted(rows, here)] = adds[first]
        totals += share
    best = np.argsort(-totals, kind="stable")[:k]
    return list(zip(rows[best].tolist(), totals[best].tolist(), strict=True))
