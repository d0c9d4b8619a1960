import json

import pytest
from typer.testing import CliRunner

from forage.cli import app
from forage.coverage import coverage_summary, coverage_text, measure_coverage
from forage.datasets.coverage import Covered, read_coverage, write_coverage
from forage.datasets.jsonl import Jsonl, write_passages, write_questions
from forage.errors import DataError
from forage.indexing.build import build_index
from forage.types import Passage, Question

PASSAGES = [Passage("1", "Paris", "The capital of France."), Passage("2", "Lyon", "Known for its silk, yes!")]


def question(identity, *answers, titles=()):
    return Question(id=identity, text="Who?", answers=answers, supporting_titles=titles)


@pytest.mark.parametrize(
    ("asked", "covered", "answer", "titles"),
    [
        (question("a", "Berlin", "CAPITAL of the France"), True, True, None),
        (question("b", "Berlin"), False, False, None),
        (question("c", "ran"), False, False, None),  # inside a word
        (question("d", "the"), False, False, None),  # nothing is left of it
        (question("e", "Berlin", titles=("Paris", "Lyon")), True, False, True),
        (question("f", "Berlin", titles=("Paris", "Rome")), False, False, False),
        (question("g", "silk", titles=("Rome",)), True, True, False),
        (question("h", "yes", titles=("Rome",)), False, False, False),
        (question("i", "yes"), True, True, None),
        (question("j", "Lyon Known"), True, True, None),  # title and text are read as one
    ],
)
def test_what_counts_as_covered(asked, covered, answer, titles):
    assert measure_coverage([asked], PASSAGES) == [Covered(asked.id, covered, answer, titles)]


def test_the_titles_of_duplicates_that_an_index_left_out_are_there(tmp_path):
    twins = [Passage("1", "Paris", "The capital of France."), Passage("2", "City of Paris", "The capital of France.")]
    write_passages(tmp_path / "c.jsonl", twins)
    write_questions(tmp_path / "q.jsonl", [question("a", "Berlin", titles=("Paris", "City of Paris"))])
    near = {"duplicates": "near", "near": 0.5}
    assert build_index(tmp_path / "c.jsonl", "bm25", tmp_path / "i", options=near).passages == 1
    done = CliRunner().invoke(app, ["coverage", str(tmp_path / "q.jsonl"), str(tmp_path / "i"), "--json"])
    assert json.loads(done.stdout)["by_titles"] == 1


def test_questions_are_looked_for_together_as_alone():
    asked = [question(str(n), *answers) for n, answers in enumerate((["silk"], ["silk"], ["capital"], ["x", "silk"]))]
    assert measure_coverage(asked, PASSAGES) == [measure_coverage([each], PASSAGES)[0] for each in asked]


def test_the_summary_counts():
    summary = coverage_summary([Covered("a", True, True), Covered("b", True, False, True), Covered("c", False, False)])
    assert {name: summary[name] for name in ("n", "covered", "by_answer", "by_titles")} == {
        "n": 3,
        "covered": 2,
        "by_answer": 1,
        "by_titles": 1,
    }
    assert "2 of 3 questions" in coverage_text(summary)


def files(folder):
    write_passages(folder / "c.jsonl", PASSAGES)
    write_questions(folder / "q.jsonl", [question("a", "France"), question("b", "Berlin"), question("c", "silk")])
    return folder / "q.jsonl", folder / "c.jsonl"


def test_training_leaves_out_what_the_corpus_can_not_answer(tmp_path):
    questions, corpus = files(tmp_path)
    out = tmp_path / "coverage.jsonl"
    done = CliRunner().invoke(app, ["coverage", str(questions), str(corpus), "--out", str(out), "--json"])
    assert json.loads(done.stdout)["covered"] == 2
    assert {name: each.covered for name, each in read_coverage(out).items()} == {"a": True, "b": False, "c": True}
    for split, kept in (("train", ["a", "c"]), ("eval", ["a", "b", "c"])):
        data = Jsonl(split, questions=questions, corpus=corpus, coverage=out)
        assert [each.id for each in data.questions()] == kept


def test_questions_that_the_file_does_not_know_stay(tmp_path):
    questions, corpus = files(tmp_path)
    write_coverage(tmp_path / "k.jsonl", [Covered("a", False, False)])
    data = Jsonl("train", questions=questions, corpus=corpus, coverage=tmp_path / "k.jsonl")
    assert [each.id for each in data.questions()] == ["b", "c"]
    write_coverage(tmp_path / "k.jsonl", [Covered(name, False, False) for name in "abc"])
    with pytest.raises(DataError, match="can't answer a single one of the 3"):
        Jsonl("train", questions=questions, corpus=corpus, coverage=tmp_path / "k.jsonl")


def test_a_file_that_is_something_else_is_named(tmp_path):
    (tmp_path / "k.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(DataError, match=r"k.jsonl:1: .*covered"):
        read_coverage(tmp_path / "k.jsonl")
