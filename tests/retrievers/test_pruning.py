"""Skipping postings changes nothing: neither rows nor a bit of a score, whatever is asked of whatever corpus."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.indexing.analyser import Analyser, analysis
from forage.indexing.postings import in_memory
from forage.indexing.runs import runs
from forage.retrievers.scoring import Scorer
from forage.types import Passage

pytest.importorskip("numba")
ANALYSER = Analyser(analysis("none", "none", title=False))


def scorers(texts, window, k1=0.9, b=0.4):
    """One that reads every posting, and one that skips."""
    passages = [Passage(str(row), "", text) for row, text in enumerate(texts)]
    postings = in_memory(list(runs(passages, ANALYSER)), k1=k1, b=b)
    return (
        Scorer(postings, ANALYSER, len(texts), prune_from=len(texts) + 1),
        Scorer(postings, ANALYSER, len(texts), prune_from=0, window=window),
    )


word = st.integers(0, 9).map(lambda number: f"w{number * number // 9}")  # some much commoner than others
texts = st.lists(st.lists(word, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=60)


@settings(deadline=None)
@given(
    texts,
    st.lists(word, max_size=7).map(" ".join),
    st.integers(1, 12),
    st.integers(1, 70),
    st.floats(0, 3),
    st.floats(0, 1),
)
def test_skipping_changes_nothing(texts, query, k, window, k1, b):
    full, skipping = scorers(texts, window, k1, b)
    assert skipping.best(query, k) == full.best(query, k)
    assert skipping.best("w0", 1) == full.best("w0", 1)  # the room is clean again


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32), st.integers(1, 50))
def test_it_does_so_where_there_is_something_to_skip(seed, k):
    stream = np.random.default_rng(seed)
    draws = np.minimum(stream.zipf(1.3, (3000, 12)), 400)
    full, skipping = scorers([" ".join(f"w{number}" for number in row) for row in draws], 256)
    for query in np.minimum(stream.zipf(1.3, (20, 6)), 400):
        asked = " ".join(f"w{number}" for number in query)
        assert skipping.best(asked, k) == full.best(asked, k)


def test_ties_go_to_the_earlier_passage_across_windows():
    _, skipping = scorers(["red blue"] * 50, 7)
    assert [row for row, _ in skipping.best("blue red", 10)] == list(range(10))
