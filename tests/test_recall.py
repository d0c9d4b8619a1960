import json

import pytest

from forage.errors import ConfigError, DataError
from forage.recall import judge, measure_recall, read_judged, recall_text
from forage.types import Passage

PARIS, LYON, ROME = (
    Passage("1", "Paris", "capital of France"),
    Passage("2", "Lyon", "silk"),
    Passage("3", "Rome", "Italy"),
)


class Fixed:
    """Finds the same passages whatever is asked."""

    def __init__(self, *found):
        self.found = found

    def lookup(self, queries, k):
        return [list(self.found[:k]) for _ in queries]


def questions(folder, *rows):
    path = folder / "q.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "question": "Who?", **row}) + "\n" for n, row in enumerate(rows)))
    return list(read_judged(path))


def test_the_measures_of_some_questions(tmp_path):
    asked = questions(
        tmp_path,
        {"supporting_titles": ["Lyon", "Rome"], "answers": ["Silk"]},
        {"positive_ids": [1, "9"], "supporting_titles": ["Rome"], "golden_answers": ["ran"]},
        {"positive_ids": ["9"]},
    )
    found = measure_recall(Fixed(PARIS, LYON, ROME), asked, (1, 3), out=tmp_path / "each.jsonl")
    assert [found[name] for name in ("n", "judged", "answered")] == [3, 3, 2]
    assert found["recall"] == pytest.approx({"1": 0.5 / 3, "3": 1.5 / 3})
    assert found["mrr"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["hit_rate"] == {"1": 0.0, "3": 0.5}  # "ran" is in France, but no word
    assert set(found["latency_ms"]) == {"p50", "p95"}
    for name in ("recall_ci", "hit_rate_ci"):
        low, high = found[name]["3"]
        assert low <= found[name.removesuffix("_ci")]["3"] <= high
    each = [json.loads(line) for line in (tmp_path / "each.jsonl").read_text().splitlines()]
    assert [row["rr"] for row in each] == [0.5, 1.0, 0.0]
    assert "recall@3" in recall_text(found)


def test_what_no_question_allows_is_none(tmp_path):
    found = measure_recall(Fixed(PARIS), questions(tmp_path, {"answers": ["Italy"]}), (3,))
    assert (found["recall"], found["mrr"], found["hit_rate"]) == ({"3": None}, None, {"3": 0.0})
    assert "MRR" not in recall_text(found)


def test_a_title_that_is_found_twice_counts_once(tmp_path):
    (question,) = questions(tmp_path, {"supporting_titles": ["Paris", "Rome"]})
    assert judge(question, [PARIS, Passage("4", "Paris", "")], [2])["recall"] == {"2": 0.5}


def test_what_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(DataError, match="no questions"):
        measure_recall(Fixed(), [])
    with pytest.raises(ConfigError, match="at least 1"):
        measure_recall(Fixed(), questions(tmp_path, {}), (3, 0))
    with pytest.raises(DataError, match=r"q.jsonl:1: `question` must be"):
        questions(tmp_path, {"question": " "})


@pytest.mark.parametrize("ids", ["p1", [None], [True], [["p1"]], {"p1": 1}])
def test_gold_ids_that_are_none_are_refused(tmp_path, ids):
    with pytest.raises(DataError, match=r"q.jsonl:1: `positive_ids` must be a list of strings or whole numbers"):
        questions(tmp_path, {"positive_ids": ids})
