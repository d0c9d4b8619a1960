"""The best passages of a query without reading most of its postings, compiled by numba.

Words are taken from the rarest on. As soon as no passage with none of the words so far can still be among the best k,
the long lists of common words are only asked about the passages that are left (MaxScore: H. Turtle and J. Flood 1995,
"Query evaluation: strategies and optimizations"). How good the k-th best must be is known early, for the passages that
lead so far are scored in full at once. Sums on the way may be rounded otherwise than the exact ones; bounds leave room
for that, and who is left in the end is scored exactly: float32, in the order of the query's words.
"""

from __future__ import annotations

import numba
import numpy as np

FLOAT = np.float32
SLACK = 1 - 1e-5
"""Many times the rounding of a sum of float32, whose relative error is some 1e-7."""
LEADERS = 16
"""Passages that are scored in full on the way."""
STEP = 40
"""Postings that can be read one after another in the time that one binary search takes."""

compiled = numba.njit(error_model="numpy", nogil=True, cache=True)


@compiled
def _find(rows: np.ndarray, impacts: np.ndarray, start: int, end: int, row: int) -> np.float32:
    """What a word adds to the score of a passage; 0 where it is not in it."""
    low, high = start, end
    while low < high:
        middle = (low + high) >> 1
        if rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return impacts[low] if low < end and rows[low] == row else FLOAT(0)


@compiled
def _insert(scores: np.ndarray, rows: np.ndarray, held: int, score: float, row: int) -> int:
    """Keep the best len(scores) by score, ties by row; returns how many are held."""
    size = len(scores)
    if held == size and not (score > scores[size - 1] or (score == scores[size - 1] and row < rows[size - 1])):
        return held
    at = held if held < size else size - 1
    while at > 0 and (score > scores[at - 1] or (score == scores[at - 1] and row < rows[at - 1])):
        scores[at], rows[at] = scores[at - 1], rows[at - 1]
        at -= 1
    scores[at], rows[at] = score, row
    return min(held + 1, size)


@compiled
def _least(
    rows: np.ndarray,
    impacts: np.ndarray,
    spans: np.ndarray,
    times: np.ndarray,
    word: int,
    sums: np.ndarray,
    seen: np.ndarray,
    count: int,
    k: int,
) -> float:
    """A score that k passages reach: the k-th best of those that lead after `word` words, scored in full."""
    lead, leaders = np.empty(max(k, LEADERS), FLOAT), np.empty(max(k, LEADERS), np.int64)
    held = 0
    for i in range(count):
        score = sums[seen[i]]
        if held < len(lead) or score > lead[held - 1]:
            held = _insert(lead, leaders, held, score, np.int64(seen[i]))
    if held < k:
        return 0.0
    full, best = np.empty(k, FLOAT), np.empty(k, np.int64)
    kept = 0
    for i in range(held):
        score = lead[i]
        for other in range(word, len(spans)):
            score += times[other] * _find(rows, impacts, spans[other, 0], spans[other, 1], leaders[i])
        kept = _insert(full, best, kept, score, leaders[i])
    return float(full[k - 1])


@compiled
def _kept(sums: np.ndarray, seen: np.ndarray, count: int, least: float) -> int:
    """Drop those of `seen` whose sum is less; returns how many are left."""
    left = 0
    for i in range(count):
        row = seen[i]
        if sums[row] < least:
            sums[row] = FLOAT(0)
        else:
            seen[left] = row
            left += 1
    return left


@compiled
def _rarest_first(starts: np.ndarray, query: np.ndarray, spans: np.ndarray, times: np.ndarray) -> int:
    """The different words of the query by how many passages hold them: where their postings lie, and how often each
    is asked for. Returns how many there are.
    """
    words = 0
    for number in query:
        start, end = starts[number], starts[number + 1]
        at = 0
        while at < words and spans[at, 0] != start:
            at += 1
        if at < words:
            times[at] += FLOAT(1)
            continue
        at = words
        while at > 0 and spans[at - 1, 1] - spans[at - 1, 0] > end - start:
            spans[at], times[at] = spans[at - 1], times[at - 1]
            at -= 1
        spans[at, 0], spans[at, 1], times[at] = start, end, FLOAT(1)
        words += 1
    return words


@compiled
def best(
    rows: np.ndarray,
    impacts: np.ndarray,
    starts: np.ndarray,
    tops: np.ndarray,
    query: np.ndarray,
    k: int,
    sums: np.ndarray,
    seen: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and scores of the best k passages, best first, ties by row; fewer where fewer hold a word.

    Args:
        rows: [N] passages by word, ascending.
        impacts: [N] what the word adds.
        starts: [V + 1] where the postings of each word begin.
        tops: [V] the largest impact of each word.
        query: its words in order, repetitions included; at least one.
        k: how many.
        sums: [passages] zeros, and zeros again at the end.
        seen: [passages] room.
    """
    spans, times = np.empty((len(query), 2), np.int64), np.empty(len(query), FLOAT)
    words = _rarest_first(starts, query, spans, times)
    spans, times = spans[:words], times[:words]
    largest = np.empty(words, FLOAT)  # by place in `spans`
    for number in query:
        for other in range(words):
            if spans[other, 0] == starts[number]:
                largest[other] = times[other] * tops[number]
    count, least, word = 0, 0.0, 0
    ahead = 0.0  # what the words that are still to come can add at most
    for other in range(words):
        ahead += float(largest[other])
    while word < words and (ahead >= least * SLACK or least <= 0.0):
        for at in range(spans[word, 0], spans[word, 1]):
            row, score = rows[at], times[word] * impacts[at]
            if sums[row] == FLOAT(0) and score > FLOAT(0):
                seen[count] = row
                count += 1
            sums[row] += score
        ahead -= float(largest[word])
        word += 1
        least = max(least, _least(rows, impacts, spans, times, word, sums, seen, count, k))
    count = _kept(sums, seen, count, least * SLACK - ahead)
    while word < words:
        start, end = spans[word]
        if count * STEP < end - start:
            for i in range(count):
                sums[seen[i]] += times[word] * _find(rows, impacts, start, end, seen[i])
        else:
            for at in range(start, end):
                if sums[rows[at]] > FLOAT(0):
                    sums[rows[at]] += times[word] * impacts[at]
        ahead -= float(largest[word])
        word += 1
        count = _kept(sums, seen, count, least * SLACK - ahead)
    scores, found = np.empty(k, FLOAT), np.empty(k, np.int64)
    held = 0
    for i in range(count):
        score = FLOAT(0)
        for number in query:
            score += _find(rows, impacts, starts[number], starts[number + 1], seen[i])
        held = _insert(scores, found, held, score, np.int64(seen[i]))
        sums[seen[i]] = FLOAT(0)
    return found[:held], scores[:held]
