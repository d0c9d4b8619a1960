import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage import build
from forage.configure import dump, load
from forage.datasets.jsonl import write_passages, write_questions
from forage.errors import ConfigError, RetrieverError
from forage.retrievers.fused import FusedRetriever, fused_by_id
from forage.retrievers.gather import Gather
from forage.testing import DictionaryRetriever
from forage.types import Passage, Question

PASSAGES = [Passage(str(n), "", f"red {'tower ' * n}") for n in range(5)]


class Elsewhere:
    """An engine over the network; it knows one query, and that backwards."""

    bounds_itself = True

    def __init__(self, passages=(), *, broken: bool = False) -> None:
        found = RetrieverError("no answer") if broken else PASSAGES[::-1]
        self.inner = DictionaryRetriever({"red": found})

    async def search(self, queries, k):
        return await self.inner.search(queries, k)


def ask(retriever, query, k=2):
    return asyncio.run(Gather(retriever).search([query], k))[0]


ids = st.lists(st.sampled_from("abcdef"), unique=True, max_size=5)


@given(st.lists(ids, min_size=2, max_size=3), st.integers(1, 8))
def test_engines_are_fused_as_a_dictionary_would(rankings, k):
    totals = {}
    for ranking in rankings:
        for rank, each in enumerate(ranking, start=1):
            totals[each] = totals.get(each, 0.0) + 1 / (60 + rank)
    found = fused_by_id([[Passage(each, "", each, 9.0) for each in ranking] for ranking in rankings], k)
    best = sorted(totals, key=lambda each: -totals[each])[:k]  # stable: what was met first
    assert [(p.id, p.text, p.score) for p in found] == [(each, each, totals[each]) for each in best]


def test_engines_in_process_stay_that_and_read_the_same_corpus():
    engines = {"plain": "bm25", "stemmed": "bm25"}
    over = FusedRetriever(iter(PASSAGES), engines=engines, options={"plain": {"stemmer": "none"}})
    assert Gather(over).in_process
    assert [p.id for p in ask(over, "towers", 3)] == ["4", "3", "2"]
    assert ask(over, "green") == []


def test_an_engine_elsewhere_and_one_here():
    over = FusedRetriever(PASSAGES, engines={"here": "bm25", "there": f"{__name__}:Elsewhere"}, depth=3)
    assert not Gather(over).in_process
    assert over.bounds_itself
    assert [(p.id, p.score) for p in ask(over, "red", 5)] == [
        (str(n), pytest.approx(1 / (60 + n + 1) + 1 / (60 + 5 - n))) for n in (0, 4, 1, 3, 2)
    ]
    assert [p.id for p in ask(over, "red", 2)] == ["2", "0"]  # both have 2 among three; 0 and 4 are equal
    assert [p.id for p in ask(over, "tower", 1)] == ["4"]


def test_where_one_engine_fails_the_search_has_failed():
    over = FusedRetriever(
        PASSAGES,
        engines={"here": "bm25", "there": f"{__name__}:Elsewhere"},
        options={"there": {"broken": True}},
    )
    assert str(ask(over, "red")) == "search.engines.there: no answer"
    assert [p.id for p in ask(over, "tower", 1)] == ["4"]


def test_a_run_names_its_engines(tmp_path):
    write_passages(tmp_path / "c.jsonl", PASSAGES)
    write_questions(tmp_path / "q.jsonl", [Question(id="1", text="red", answers=("tower",), supporting_titles=("x",))])
    words = [
        *(f"data.{name}={tmp_path / name[0]}.jsonl" for name in ("questions", "corpus")),
        "search=fused",
        "search.engines.words=bm25",
        f"search.engines.other={__name__}:Elsewhere",
    ]
    config = load(None, [*words, "search.options.words.k1=1.5"])
    (tmp_path / "again.toml").write_text(dump(config))
    for each in (config, load(tmp_path / "again.toml")):
        found = asyncio.run(build.retriever(each, build.dataset(each, "eval")).search(["red"], 2))
        assert [p.id for p in found[0]] == ["0", "4"]
    for more, message in (
        (["search.options.words.k2=1"], r"search\.options\.words: search\.k2 is unknown"),
        (["search.options.word.k1=1"], r"search\.options\.word: no such engine; did you mean 'words'"),
        (["search.engines.words=bm52"], r"search\.options\.words: .*did you mean 'bm25'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(None, [*words, *more])
    with pytest.raises(ConfigError, match="name two at least"):
        load(None, ["search=fused", "search.engines.one=bm25"])
