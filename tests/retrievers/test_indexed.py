import json

import pytest
from typer.testing import CliRunner

from forage import build
from forage.cli import app
from forage.configure import load
from forage.datasets.jsonl import write_passages, write_questions
from forage.errors import ConfigError, IndexFolderError
from forage.retrievers.indexed import IndexedRetriever
from forage.search import marked, search_corpus
from forage.types import Passage, Question

PASSAGES = [Passage("a", "Rivers", "of Europe"), Passage("b", "Towers", "of Asia"), Passage("c", "", "a red river")]


def run(*words):
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    write_passages(tmp_path / "c.jsonl", PASSAGES)
    write_questions(
        tmp_path / "q.jsonl",
        [Question(id="1", text="which river?", answers=("Europe",), supporting_titles=("Rivers",))],
    )
    made = json.loads(
        run("index", tmp_path / "c.jsonl", "--kind", "bm25", "--out", tmp_path / "index", "k1=1.2", "--json")
    )
    assert (made["passages"], made["kind"]) == (3, "bm25")
    return tmp_path


def test_a_run_searches_an_index(folder):
    words = [f"data.questions={folder / 'q.jsonl'}", "search=indexed", f"search.path={folder / 'index'}", "search.k=2"]
    for more in ([], [f"data.corpus={folder / 'c.jsonl'}"]):  # without a corpus, and with that of the index
        config = load(None, [*words, *more])
        retriever = build.retriever(config, build.dataset(config, "eval"))
        assert retriever.in_process
    assert [p.id for p in IndexedRetriever(path=folder / "index").lookup(["rivers"], 2)[0]] == ["a", "c"]


def test_an_index_of_another_corpus_is_refused(folder):
    for other in ([*PASSAGES, Passage("d", "", "more")], [Passage("a", "Rivers", "of Asia")]):
        with pytest.raises(IndexFolderError, match="is of another corpus"):
            IndexedRetriever(other, path=folder / "index")


def test_a_run_without_corpus_and_index_is_refused(folder):
    with pytest.raises(ConfigError, match=r"search\.path is missing"):
        load(None, [f"data.questions={folder / 'q.jsonl'}", "search=indexed"])


def test_an_index_is_searched_as_its_corpus(folder):
    found = json.loads(run("search", folder / "index", "river", "--k", 2, "--json"))
    assert [each["id"] for each in found["results"]] == ["a", "c"]
    assert [each["id"] for each in search_corpus(folder / "c.jsonl", "river", k=2)["results"]] == ["a", "c"]


def test_recall_is_measured_and_said_as_agreed(folder):
    found = json.loads(run("recall", folder / "index", folder / "q.jsonl", "--k", "1,3", "--json"))
    assert (found["n"], found["recall"], found["mrr"], found["hit_rate"]) == (
        1,
        {"1": 1.0, "3": 1.0},
        1.0,
        {"1": 1.0, "3": 1.0},
    )
    assert {"p50", "p95"} == set(found["latency_ms"])


def test_documents_are_cut_and_indexed(folder):
    write_passages(folder / "docs.jsonl", [Passage("d", "T", "one two three four five")])
    made = json.loads(run("chunk", folder / "docs.jsonl", "--out", folder / "cut.jsonl", "--words", 2, "--json"))
    assert made["passages"] == 3
    run("index", folder / "cut.jsonl", "--out", folder / "cut")
    assert search_corpus(folder / "cut", "four", k=1)["results"][0]["id"] == "d#1"


def test_words_of_the_query_stand_out_in_every_form():
    assert marked("The Rivers of the river-side, RIVER", "the river?", lambda word: f"<{word}>") == (
        "The <Rivers> of the <river>-side, <RIVER>"
    )
