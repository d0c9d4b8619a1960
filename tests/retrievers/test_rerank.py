import asyncio
import json
import math
import pickle
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from forage import build
from forage.cli import app
from forage.configure import dump, load
from forage.datasets.jsonl import write_passages, write_questions
from forage.errors import ConfigError, RetrieverError
from forage.indexing.build import command_line_options
from forage.retrievers.bm25 import BM25Retriever
from forage.retrievers.gather import Gather
from forage.retrievers.rerank import RerankedIndex, RerankedRetriever, reranked
from forage.server.serve import open_folder
from forage.testing import DictionaryRetriever
from forage.types import Passage, Question

PASSAGES = [Passage(str(n), "", f"red {'tower ' * n}") for n in range(5)]


class Longest:
    """Prefers long passages."""

    def __init__(self, *, sign: int = 1) -> None:
        self.sign = sign
        self.calls = []

    def score(self, pairs):
        self.calls.append([(query, passage.id) for query, passage in pairs])
        return [self.sign * len(passage.text) for _, passage in pairs]


class Levels:
    """Scores that stand in a table of (query, id)."""

    def __init__(self, table):
        self.table = table

    def score(self, pairs):
        return [self.table[query, passage.id] for query, passage in pairs]


class Engine:
    """An asynchronous search engine that knows one query."""

    bounds_itself = True

    def __init__(self, passages) -> None:
        self.inner = DictionaryRetriever({"red": PASSAGES, "broken": RetrieverError("no answer")})

    async def search(self, queries, k):
        return await self.inner.search(queries, k)


tables = st.dictionaries(
    st.tuples(st.sampled_from("ab"), st.sampled_from("01234")), st.sampled_from([-1.0, 0.0, 2.5]), max_size=10
)


@given(tables, st.lists(st.sampled_from("ab"), max_size=3), st.integers(1, 6))
def test_reranking_is_sorting_by_the_scores(table, queries, k):
    found = [[PASSAGES[int(id_)] for query, id_ in table if query == asked] for asked in queries]
    got = reranked(Levels(table), queries, found, k)
    for query, passages, best in zip(queries, found, got, strict=True):
        wanted = sorted(passages, key=lambda passage: -table[query, passage.id])[:k]  # stable
        assert [(p.id, p.text, p.score) for p in best] == [(p.id, p.text, table[query, p.id]) for p in wanted]


def test_each_query_is_paired_with_its_own_passages_in_one_call():
    reranker = Longest()
    reranked(reranker, ["a", "b", "c"], [PASSAGES[:2], [], PASSAGES[3:4]], 2)
    assert reranker.calls == [[("a", "0"), ("a", "1"), ("c", "3")]]


def test_nothing_found_is_not_judged():
    assert reranked(Levels(None), ["a"], [[]], 3) == [[]]


def test_an_index_is_asked_more_deeply_than_it_answers():
    index = RerankedIndex(BM25Retriever(PASSAGES), Longest(), depth=3)
    assert len(index) == 5
    assert [p.id for p in index.lookup(["red"], 1)[0]] == ["2"]  # BM25 finds the short ones first
    assert [p.id for p in index.lookup(["red"], 4)[0]] == ["3", "2", "1", "0"]
    deep = RerankedIndex(BM25Retriever(PASSAGES), Longest(), depth=50)
    assert [p.id for p in deep.lookup(["red", "green"], 1)[0]] == ["4"]
    with pytest.raises(ConfigError, match="the corpus holds 5"):
        deep.lookup(["red"], 6)


@pytest.mark.parametrize(
    ("scores", "message"),
    [([1.0, math.nan], "gave nan for the passage '1' and the query 'red'"), ([1.0], "scores for 2 pairs")],
)
def test_what_is_no_score_is_a_failed_search(scores, message):
    class Wrong:
        def score(self, pairs):
            return scores

    with pytest.raises(RetrieverError, match=message):
        reranked(Wrong(), ["red"], [PASSAGES[:2]], 2)


def ask(retriever, *queries, k=2):
    return asyncio.run(Gather(retriever).search(list(queries), k))


def test_an_index_in_process_stays_one():
    over = RerankedRetriever(PASSAGES, first="bm25", reranker=f"{__name__}:Longest", depth=4)
    assert Gather(over).in_process
    assert [p.id for p in ask(over, "red")[0]] == ["3", "2"]


def test_an_engine_elsewhere_keeps_its_failures():
    over = RerankedRetriever(first=f"{__name__}:Engine", reranker=f"{__name__}:Longest")
    assert not Gather(over).in_process
    assert over.bounds_itself
    found, broken, nothing = ask(over, "red", "broken", "else")
    assert [p.id for p in found] == ["4", "3"]
    assert (str(broken), nothing) == ("no answer", [])


@pytest.fixture
def folder(tmp_path):
    write_passages(tmp_path / "c.jsonl", PASSAGES)
    write_questions(tmp_path / "q.jsonl", [Question(id="1", text="red", answers=("tower",), supporting_titles=("x",))])
    done = CliRunner().invoke(app, ["index", str(tmp_path / "c.jsonl"), "--out", str(tmp_path / "index")])
    assert done.exit_code == 0, done.output
    return tmp_path


def test_a_run_reranks_what_another_engine_finds(folder):
    words = [
        f"data.questions={folder / 'q.jsonl'}",
        "search=reranked",
        "search.first=indexed",
        f"search.first_options.path={folder / 'index'}",
        f"search.reranker={__name__}:Longest",
    ]
    config = load(None, [*words, "search.reranker_options.sign=-1"])
    (folder / "again.toml").write_text(dump(config))
    for each in (config, load(folder / "again.toml")):
        retriever = build.retriever(each, build.dataset(each, "eval"))
        found = asyncio.run(retriever.search(["red"], 2))
        assert [p.id for p in found[0]] == ["0", "1"]
    for more, message in (
        (["search.first_options.k1=1"], r"search\.first_options: search\.k1 is unknown"),
        (["search.reranker_options.sigh=1"], r"search\.reranker_options: reranker\.sigh is unknown.*reranker\.sign"),
        (["search.reranker=cross_encoder"], r"reranker\.path is missing"),
        (["search.depht=3"], r"did you mean 'search\.depth'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(None, [*words, *more])


def run(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.stdout if not code else done.output


def test_commands_take_a_reranker(folder):
    words = [f"reranker.kind={__name__}:Longest", "reranker.depth=4"]
    found = json.loads(run("search", folder / "index", "red", "--k", 1, "--json", *words))
    assert [(each["id"], each["score"]) for each in found["results"]] == [("3", len(PASSAGES[3].text))]
    measured = json.loads(run("recall", folder / "index", folder / "q.jsonl", "--k", 1, "--json", *words))
    assert measured["hit_rate"] == {"1": 1.0}
    assert "reranker.sign" in run("search", folder / "index", "red", *words, "reranker.sigh=1", code=2)
    assert "reranker.depth" in run("search", folder / "index", "red", words[0], "reranker.depth=0", code=2)
    opened = pickle.loads(pickle.dumps(partial(open_folder, folder / "index", command_line_options(words))))()
    assert opened.info["opened_with"] == {"reranker.kind": f"{__name__}:Longest", "reranker.depth": 4}
    assert [p.id for p in opened.index.lookup(["red"], 1)[0]] == ["3"]
    assert "are for an index" in run("search", folder / "c.jsonl", "red", *words, code=2)
