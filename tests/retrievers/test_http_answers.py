"""Whatever a search server says, it is passages that can be shown, or a wrong answer."""

import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from forage.retrievers.http_answers import WrongAnswer, read_result, read_results
from forage.types import Passage

WORDS = st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
FIELDS = dict.fromkeys(("id", "title", "text", "contents"), WORDS | JSON)
DOCUMENTS = st.fixed_dictionaries({}, optional=FIELDS) | JSON
HITS = st.fixed_dictionaries({**FIELDS, "score": st.floats() | JSON}) | JSON
FOUND = st.fixed_dictionaries({"document": DOCUMENTS}, optional={"score": st.floats() | JSON}) | JSON


def checked(read, answer, k):
    """Whether what was read of two queries' answer is what may be read."""
    with suppress(WrongAnswer):
        outcomes = read(json.dumps(answer).encode(), 2, k)
        assert len(outcomes) == 2
        for outcome in outcomes:
            assert isinstance(outcome, str) or len(outcome) <= k
            for one in outcome if isinstance(outcome, list) else ():
                assert isinstance(one, Passage)
                assert one.text.strip()
                assert {type(one.id), type(one.title), type(one.text)} == {str}
                assert -float("inf") < one.score < float("inf")


@given(st.lists(st.lists(HITS, max_size=3), max_size=3) | JSON, JSON, st.integers(1, 3))
def test_of_forages_protocol(results, errors, k):
    checked(read_results, {"results": results}, k)
    checked(read_results, {"results": results, "errors": errors}, k)


@given(st.lists(st.lists(FOUND, max_size=3), max_size=3) | JSON, st.integers(1, 3))
def test_of_search_r1s_protocol(result, k):
    checked(read_result, {"result": result}, k)


@given(JSON)
def test_of_no_protocol(answer):
    checked(read_results, answer, 3)
    checked(read_result, answer, 3)


def test_a_title_without_a_text_is_no_passage():
    for document in (
        {"contents": '"Paris"\n'},
        {"contents": '"Paris"\n', "title": "Paris", "text": ""},
        {"title": "T"},
    ):
        with suppress(WrongAnswer):
            read_result(json.dumps({"result": [[{"document": document}]]}).encode(), 1, 3)
            raise AssertionError(document)
