"""Evaluation: every question once, resumable, with intervals."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.datasets.coverage import Covered
from forage.errors import DataError, RetrieverError
from forage.evaluation import PARTIAL, PREDICTIONS, SUMMARY, evaluate
from forage.intervals import normal_interval, wilson
from forage.output import summary_text
from forage.records import from_record, read_records, to_record, write_records
from forage.renderers.tags import TagRenderer
from forage.rollout import Limits, Rollout
from forage.testing import ByteTokenizer, DictionaryRetriever, ScriptedEngine
from forage.types import Passage, Question

TOKENIZER = ByteTokenizer()
QUESTIONS = [
    Question("a", "Where is Rome?", ("Italy",), "set", 1),
    Question("b", "Where is Oslo?", ("Norway", "Kingdom of Norway"), "set", 2),
    Question("c", "Where is Atlantis?", ("Nowhere",), "set", 2),
]
FOUND = {
    "Rome": [Passage("1", "Rome", "Rome is in Italy.")],
    "Oslo": [Passage("2", "Oslo", "A city of Norway.")],
    "Atlantis": [],
}


def agent(found):
    def script(context, turn):
        place = context.split("Where is ")[1].split("?")[0]
        if turn == 0:
            return f"<search> {place}</search>"
        return f"<answer> {'Italy' if place == 'Rome' else 'the kingdom of Norway'}</answer>"

    renderer = TagRenderer(TOKENIZER, template="short")
    return Rollout(ScriptedEngine(script, TOKENIZER), renderer, DictionaryRetriever(found), 1, Limits(), 0.0)


def test_the_summary_counts_every_question(tmp_path):
    seen = []
    summary = asyncio.run(evaluate(QUESTIONS, agent(FOUND), tmp_path, lambda done, total: seen.append((done, total))))
    assert summary["n"] == 3
    assert summary["em"] == pytest.approx(2 / 3)
    assert summary["by_hop"] == {"1": 1.0, "2": 0.5}
    assert summary["hit_rate"] == pytest.approx(2 / 3)
    assert summary["searches_mean"] == 1
    assert summary["stop_reasons"] == {"answered": 1.0}
    assert summary["em_ci"][0] < summary["em"] < summary["em_ci"][1]
    assert seen[-1] == (3, 3)
    assert json.loads((tmp_path / SUMMARY).read_text()) == summary
    records = list(read_records(tmp_path / PREDICTIONS))
    assert [record["question"]["id"] for record in records] == ["a", "b", "c"]
    assert not (tmp_path / PARTIAL).exists()


def test_a_failed_search_stops_the_evaluation_which_then_goes_on_where_it_stopped(tmp_path):
    broken = FOUND | {"Oslo": RetrieverError("timed out")}
    with pytest.raises(RetrieverError, match=r"question 'b': timed out.*run the same command"):
        asyncio.run(evaluate(QUESTIONS, agent(broken), tmp_path))
    assert not (tmp_path / SUMMARY).exists()
    with (tmp_path / PARTIAL).open("a") as partial:
        partial.write('{"i": 2, "torn')
    whole = agent(FOUND)
    summary = asyncio.run(evaluate(QUESTIONS, whole, tmp_path))
    assert summary["n"] == 3
    assert "0" not in whole.engine.sessions  # Rome had been answered
    assert summary == asyncio.run(evaluate(QUESTIONS, agent(FOUND), tmp_path / "fresh"))


def test_a_partial_evaluation_of_other_questions_is_not_taken_up(tmp_path):
    with pytest.raises(RetrieverError):
        asyncio.run(evaluate(QUESTIONS, agent(FOUND | {"Oslo": RetrieverError("no")}), tmp_path))
    assert asyncio.run(evaluate(QUESTIONS[1:], agent(FOUND), tmp_path))["n"] == 2


def test_nothing_to_evaluate_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no questions"):
        asyncio.run(evaluate([], agent(FOUND), tmp_path))


def test_wilson_known_values():
    assert wilson(8, 10) == pytest.approx([0.4901625, 0.9433178], abs=1e-4)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0


@given(st.integers(1, 500), st.data())
def test_intervals_hold_their_centre(n, data):
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    low, high = normal_interval([1.0] * successes + [0.0] * (n - successes))
    assert 0 <= low <= successes / n + 1e-12
    assert high >= successes / n - 1e-12


def test_records_come_back_as_they_were(tmp_path):
    trajectory = asyncio.run(agent(FOUND).episode(QUESTIONS[1]))
    path = tmp_path / "some" / "records.jsonl.zst"
    write_records(path, [to_record(trajectory, step=3)])
    (record,) = read_records(path)
    again = from_record(record)
    assert record["step"] == 3
    assert (again.tokens, again.acted, again.turn) == (trajectory.tokens, trajectory.acted, trajectory.turn)
    assert [turn.action for turn in again.turns] == [turn.action for turn in trajectory.turns]
    assert [turn.action.well_formed for turn in again.turns] == [turn.action.well_formed for turn in trajectory.turns]
    assert [list(turn.results) for turn in again.turns] == [list(turn.results) for turn in trajectory.turns]
    assert (again.question, again.answer, again.stop) == (trajectory.question, trajectory.answer, trajectory.stop)


def test_half_a_surrogate_pair_in_a_passage_does_not_stop_a_run(tmp_path):
    write_records(tmp_path / "r.jsonl.zst", [{"text": "half \ud83d"}])
    assert list(read_records(tmp_path / "r.jsonl.zst")) == [{"text": "half ?"}]


def test_damaged_records_name_file_and_line(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"a": 1}\n{broken\n')
    with pytest.raises(DataError, match=r"records.jsonl:2"):
        list(read_records(path))
    with pytest.raises(DataError, match="no file"):
        list(read_records(tmp_path / "none.jsonl.zst"))
    whole = tmp_path / "whole.jsonl.zst"
    write_records(whole, [{"n": i} for i in range(5000)])
    cut = tmp_path / "cut.jsonl.zst"
    cut.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(DataError, match="truncated"):
        list(read_records(cut))


def test_what_the_corpus_can_answer_is_told_apart(tmp_path):
    coverage = {"a": Covered("a", True, True), "c": Covered("c", False, False)}  # b is not known to it
    summary = asyncio.run(evaluate(QUESTIONS, agent(FOUND), tmp_path, coverage=coverage))
    assert (summary["n"], summary["covered"]["n"], summary["covered"]["em"]) == (3, 2, 1.0)
    assert "1.000  (95%" in summary_text(summary).splitlines()[2]
    nothing = {name: Covered(name, False, False) for name in "abc"}
    summary = asyncio.run(evaluate(QUESTIONS, agent(FOUND), tmp_path / "none", coverage=nothing))
    assert summary["covered"] is None
    assert "none of these questions" in summary_text(summary)
