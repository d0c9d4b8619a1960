import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.text import contains_answer, exact_match, normalize_answer, token_f1

REFERENCE = Path(os.environ.get("FORAGE_REFERENCE") or Path(__file__).parent / "data" / "reference")
WORDS = st.lists(st.sampled_from(["the", "a", "cat", "Cat,", "U.S.", "dog", "–", "é", "..."]), max_size=6).map(" ".join)


def cases(topic):
    path = REFERENCE / f"{topic}.json"
    found = json.loads(path.read_text("utf-8"))["cases"] if path.exists() else []
    return pytest.mark.parametrize("case", found, ids=lambda case: case["name"])


@cases("answer_normalization")
def test_normalisation_is_that_of_squad(case):
    assert normalize_answer(case["inputs"]["text"]) == case["expected"]["normalized"]


@cases("exact_match")
def test_exact_match_is_that_of_squad_but_an_empty_gold_never_matches(case):
    prediction, golds = case["inputs"]["prediction"], case["inputs"]["golds"]
    expected = bool(case["expected"]["em"]) and normalize_answer(prediction) != ""
    assert exact_match(prediction, golds) is expected


@cases("token_f1")
def test_token_f1_is_that_of_squad_v1(case):
    expected = case["expected"]["squad_v1_f1"] or 0.0  # without any gold the script raises; here nothing matches
    assert token_f1(**case["inputs"]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("gold", ["The", "", "...", "a an"])
def test_an_answer_that_normalises_to_nothing_matches_nothing(gold):
    assert not exact_match("", [gold])
    assert not exact_match(gold, [gold])
    assert not contains_answer("the whole text", [gold])
    assert token_f1(gold, [gold]) == 0.0


@pytest.mark.parametrize(
    ("text", "golds", "expected"),
    [
        ("They live in New York City.", ["new york"], True),
        ("They concatenate.", ["cat"], False),
        ("York, New", ["New York"], False),
        ("the Hague (Den Haag)", ["London", "Hague"], True),
        ("Born in Lwów, Poland", "lwów", True),
        ("", ["x"], False),
        ("x", [], False),
    ],
)
def test_containment_is_by_whole_words_in_order(text, golds, expected):
    assert contains_answer(text, golds) is expected


@given(WORDS)
def test_normalisation_leaves_words_apart_by_single_spaces(text):
    normal = normalize_answer(text)
    assert normal == normal.strip()
    assert not re.search(r"\s\s|[.,]|[A-Z]", normal)


@given(WORDS, st.lists(WORDS, max_size=3))
def test_exact_match_implies_f1_of_one_and_containment(prediction, golds):
    f1 = token_f1(prediction, golds)
    assert 0.0 <= f1 <= 1.0
    if exact_match(prediction, golds):
        assert f1 == 1.0
        assert contains_answer(prediction, golds)
