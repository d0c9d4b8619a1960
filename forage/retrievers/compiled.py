"""The best passages of a query without reading most of its postings, compiled by numba.

Passages are gone through in windows whose sums fit a near cache. In each, words are taken from the rarest on. As soon
as no passage with none of the words so far can still be among the best k, the long lists of common words are only
asked about the passages that are left (MaxScore: H. Turtle and J. Flood 1995, "Query evaluation: strategies and
optimizations"). How good the k-th best must be is known early: the passages that the rarest words add most to are
scored first. Sums on the way may be rounded otherwise than the exact ones; bounds leave room for that, and who is left
in the end is scored exactly: float32, in the order of the query's words.
"""

from __future__ import annotations

import numba
import numpy as np

FLOAT = np.float32
SLACK = 1 - 1e-5
"""Many times the rounding of a sum of float32, whose relative error is some 1e-7."""
LEADERS = 8
"""Passages that are scored in full at first, and twice k more."""
ENOUGH = 4
"""Times as many postings of rare words are looked through for them."""
STEP = 24
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
def _least(rows: np.ndarray, impacts: np.ndarray, spans: np.ndarray, times: np.ndarray, k: int) -> float:
    """A score that k passages reach: the k-th best of those that the rarest words add most to, scored in full."""
    lead = np.empty(LEADERS + 2 * k, FLOAT)
    leaders, held, read = np.empty(len(lead), np.int64), 0, 0
    for word in range(len(spans)):
        for at in range(spans[word, 0], spans[word, 1]):
            if held < len(lead) or impacts[at] > lead[held - 1]:
                held = _insert(lead, leaders, held, impacts[at], np.int64(rows[at]))
        read += spans[word, 1] - spans[word, 0]
        if read >= ENOUGH * len(lead):
            break
    leaders = np.unique(leaders[:held])  # a passage may hold several of these words
    if len(leaders) < k:
        return 0.0
    full, best, kept = np.empty(k, FLOAT), np.empty(k, np.int64), 0
    for row in leaders:
        score = FLOAT(0)
        for word in range(len(spans)):
            score += times[word] * _find(rows, impacts, spans[word, 0], spans[word, 1], row)
        kept = _insert(full, best, kept, score, row)
    return float(full[k - 1])


@compiled
def _end(rows: np.ndarray, start: int, end: int, row: int) -> int:
    """Where rows from `row` on begin, looked for from `start` in steps that double."""
    low, step = start, 1
    while low + step < end and rows[low + step] < row:
        low += step
        step *= 2
    high = min(low + step, end)
    while low < high:
        middle = (low + high) >> 1
        if rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _kept(sums: np.ndarray, seen: np.ndarray, count: int, least: float) -> int:
    """Drop those of `seen` whose sum is less; returns how many are left."""
    left = 0
    for i in range(count):
        if sums[seen[i]] < least:
            sums[seen[i]] = FLOAT(0)
        else:
            seen[left] = seen[i]
            left += 1
    return left


@compiled
def _candidates(
    rows: np.ndarray,
    impacts: np.ndarray,
    spans: np.ndarray,
    times: np.ndarray,
    largest: np.ndarray,
    base: int,
    least: float,
    sums: np.ndarray,
    seen: np.ndarray,
) -> int:
    """Passages of one window that may reach `least`, into `seen`, from `base` on; returns how many."""
    count, word = 0, 0
    ahead = 0.0  # what the words that are still to come can add at most
    for other in range(len(spans)):
        if spans[other, 1] > spans[other, 0]:
            ahead += float(largest[other])
    while word < len(spans) and (ahead >= least * SLACK or least <= 0.0):
        start, end = spans[word]
        for at in range(start, end):
            row, score = rows[at] - base, times[word] * impacts[at]
            if sums[row] == FLOAT(0) and score > FLOAT(0):
                seen[count] = row
                count += 1
            sums[row] += score
        if end > start:
            ahead -= float(largest[word])
        word += 1
    count = _kept(sums, seen, count, least * SLACK - ahead)
    while word < len(spans) and count:
        start, end = spans[word]
        if end > start:
            if count * STEP < end - start:
                for i in range(count):
                    sums[seen[i]] += times[word] * _find(rows, impacts, start, end, seen[i] + base)
            else:
                for at in range(start, end):
                    if sums[rows[at] - base] > FLOAT(0):
                        sums[rows[at] - base] += times[word] * impacts[at]
            ahead -= float(largest[word])
            count = _kept(sums, seen, count, least * SLACK - ahead)
        word += 1
    return int(count)


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
        sums: [window] zeros, and zeros again at the end; the passages are gone through in windows of that size.
        seen: [window] room.
    """
    spans, times = np.empty((len(query), 2), np.int64), np.empty(len(query), FLOAT)
    words = _rarest_first(starts, query, spans, times)
    spans, times = spans[:words], times[:words]
    largest, places = np.empty(words, FLOAT), np.empty(len(query), np.int64)
    for i in range(len(query)):
        for word in range(words):
            if spans[word, 0] == starts[query[i]]:
                places[i] = word
                largest[word] = times[word] * tops[query[i]]
    least = _least(rows, impacts, spans, times, k)
    scores, found, held = np.empty(k, FLOAT), np.empty(k, np.int64), 0
    here = np.empty((words, 2), np.int64)
    last = 0
    for word in range(words):
        last = max(last, rows[spans[word, 1] - 1])
    for base in range(0, last + 1, len(sums)):
        for word in range(words):
            here[word, 0] = spans[word, 0]
            spans[word, 0] = here[word, 1] = _end(rows, spans[word, 0], spans[word, 1], base + len(sums))
        count = _candidates(rows, impacts, here, times, largest, base, least, sums, seen)
        for i in range(count):
            score, row = FLOAT(0), seen[i] + base
            sums[seen[i]] = FLOAT(0)
            for place in places:
                score += _find(rows, impacts, here[place, 0], here[place, 1], row)
            held = _insert(scores, found, held, score, np.int64(row))
        if held == k:
            least = max(least, float(scores[k - 1]))
    return found[:held], scores[:held]
