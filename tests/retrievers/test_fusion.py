import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.retrievers.fusion import as_ranking, reciprocal_ranks, weighted_scores

rows = st.lists(st.integers(0, 12), max_size=8, unique=True)
levels = st.sampled_from([0.25, 0.5, 1.0])


@st.composite
def rankings(draw, lowest=0.25):
    """Rows and scores as an index gives them: best first, ties by row."""
    scored = [(row, draw(levels) + lowest - 0.25) for row in draw(rows)]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))


def ordered(totals, k):
    return sorted(totals.items(), key=lambda pair: (-pair[1], pair[0]))[:k]


@given(rankings(), rankings(-0.75), st.integers(1, 15))
def test_reciprocal_ranks_are_those_of_a_dictionary(first, second, k):
    totals = {}
    for ranking in (first, second):
        for rank, (row, _) in enumerate(ranking, start=1):
            totals[row] = totals.get(row, 0.0) + 1 / (60 + rank)
    assert reciprocal_ranks([as_ranking(first), as_ranking(second)], k) == ordered(totals, k)


@given(
    rankings(),
    st.one_of(rankings(-0.75), rankings(4.0)),
    st.integers(1, 15),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.integers(0, 2),
)
def test_weighted_scores_are_those_of_a_dictionary(words, meaning, k, weight, missing):
    depth = len(words) + missing
    best = max((score for _, score in words), default=1.0)
    if not words or not meaning:
        weight = 1.0 if words else 0.0
    by_word = {row: weight * (score / best) for row, score in words}
    longest = max([1.0, *(score for _, score in meaning)])
    by_meaning = {row: (1 - weight) * (score / longest) for row, score in meaning}
    rest = min(by_word.values(), default=0.0) if not missing else 0.0, min(by_meaning.values(), default=0.0)
    totals = {row: by_word.get(row, rest[0]) + by_meaning.get(row, rest[1]) for row in {**by_word, **by_meaning}}
    found = weighted_scores(as_ranking(words), as_ranking(meaning), k, depth=depth, lexical_weight=weight)
    assert found == ordered(totals, k)


@given(rankings(), rankings(-0.75))
def test_no_row_is_found_twice_and_none_is_lost(first, second):
    both = {row for row, _ in first + second}
    for found in (
        reciprocal_ranks([as_ranking(first), as_ranking(second)], 99),
        weighted_scores(as_ranking(first), as_ranking(second), 99, depth=8, lexical_weight=0.5),
    ):
        assert len(found) == len(both)
        assert {row for row, _ in found} == both


def test_of_a_row_that_is_there_twice_the_first_place_counts():
    twice = as_ranking([(4, 3.0), (4, 2.0), (7, 1.0)])
    assert reciprocal_ranks([twice], 5) == [(4, 1 / 61), (7, 1 / 63)]


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_where_one_finds_nothing_the_order_of_the_other_stands(weight):
    some, nothing = [(9, 0.75), (2, 0.5), (3, -0.25)], as_ranking([])
    assert [row for row, _ in reciprocal_ranks([as_ranking(some), nothing], 5)] == [9, 2, 3]
    assert weighted_scores(nothing, as_ranking(some), 5, depth=3, lexical_weight=weight) == some
    found = weighted_scores(as_ranking(some[:2]), nothing, 5, depth=3, lexical_weight=weight)
    assert found == [(9, 1.0), (2, 0.5 / 0.75)]
    assert weighted_scores(nothing, nothing, 5, depth=3, lexical_weight=weight) == []


def test_passages_of_equal_scores_come_in_the_order_of_the_corpus():
    first, second = as_ranking([(5, 1.0), (1, 1.0)]), as_ranking([(1, 1.0), (5, 1.0)])
    assert [row for row, _ in reciprocal_ranks([first, second], 2)] == [1, 5]


def test_scores_have_their_types():
    found_rows, scores = as_ranking([(3, 0.5)])
    assert (found_rows.dtype, scores.dtype) == (np.int64, np.float32)
    assert [each.dtype for each in as_ranking([])] == [np.int64, np.float32]
