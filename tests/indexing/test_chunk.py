from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.errors import ConfigError
from forage.indexing.chunk import chunk
from forage.types import Passage

TEXT = "One two three. Four five! Six seven eight nine ten eleven. Twelve?"


def texts(text=TEXT, **options):
    return [passage.text for passage in chunk([Passage("d", "T", text)], **options)]


def test_passages_are_named_after_their_document():
    found = list(chunk([Passage("a", "T", "x y z"), Passage("b", "", "")], words=2))
    assert found == [Passage("a#0", "T", "x y"), Passage("a#1", "T", "z")]


def test_a_stride_makes_them_overlap():
    assert texts("a b c d e", words=3, stride=2) == ["a b c", "c d e"]


def test_sentences_stay_whole_where_they_fit():
    assert texts(words=5, sentences=True) == [
        "One two three. Four five!",
        "Six seven eight nine ten",
        "eleven. Twelve?",
    ]
    assert texts(words=5, stride=3, sentences=True)[:2] == ["One two three. Four five!", "Four five!"]


@given(
    st.lists(st.sampled_from(["a", "b.", "c!", "d?”", "e"]), max_size=30).map(" ".join),
    st.integers(1, 7),
    st.booleans(),
)
def test_without_overlap_the_words_are_those_of_the_document(text, words, sentences):
    found = texts(text, words=words, sentences=sentences)
    assert " ".join(found).split() == text.split()
    assert all(1 <= len(part.split()) <= words for part in found)


@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_with_overlap_every_word_is_somewhere_and_beginnings_are_a_stride_apart(length, words, data):
    stride = data.draw(st.integers(1, words))
    found = [
        list(map(int, part.split())) for part in texts(" ".join(map(str, range(length))), words=words, stride=stride)
    ]
    assert {word for part in found for word in part} == set(range(length))
    assert all(after[0] - before[0] == stride for before, after in pairwise(found))


@pytest.mark.parametrize("options", [{"words": 0}, {"words": 3, "stride": 4}, {"words": 3, "stride": -1}])
def test_cuts_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match="a chunk needs"):
        texts(**options)
