import asyncio
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from forage import build
from forage.cli import app
from forage.configure import load
from forage.datasets.jsonl import write_passages, write_questions
from forage.errors import ConfigError, IndexFolderError
from forage.indexing.build import build_index
from forage.indexing.folder import INDEX, read_info
from forage.retrievers.indexed import open_index
from forage.types import Passage, Question

TEXTS = ["red tower", "wet order", "blue rivers and towers", "the river", "green", "red red river", "zzz", "tower red"]
PASSAGES = [Passage(f"p{row}", "", text) for row, text in enumerate(TEXTS)]
ENCODER = {"encoder": "letters:Letters"}


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "c.jsonl"
    write_passages(path, PASSAGES)
    return path


@pytest.fixture(scope="module")
def folder(corpus):
    out = corpus.parent / "hybrid"
    build_index(corpus, "hybrid", out, options={**ENCODER, "k1": 1.2})
    for kind, options in (("bm25", {"k1": 1.2}), ("dense", ENCODER)):
        build_index(corpus, kind, corpus.parent / kind, options=options)
    return out


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != INDEX}


def test_a_hybrid_folder_holds_both_parts_as_they_would_be_alone(folder):
    assert files(folder) == files(folder.parent / "bm25") | files(folder.parent / "dense")
    info, alone = read_info(folder), {kind: read_info(folder.parent / kind) for kind in ("bm25", "dense")}
    assert info.options["bm25"] == alone["bm25"].options
    assert info.options["dense"] == alone["dense"].options
    assert info.options["fusion"] == {"method": "rrf", "depth": 10, "lexical_weight": None, "fitted": {}}
    assert {*alone["bm25"].versions, *alone["dense"].versions} == {*info.versions}


@settings(deadline=None, max_examples=40)
@given(
    query=st.lists(st.sampled_from(["red", "tower", "river", "order", "xyz", "of"]), max_size=3).map(" ".join),
    k=st.integers(1, len(TEXTS)),
    depth=st.integers(1, 12),
    weight=st.sampled_from([None, 0.0, 0.3, 1.0]),
)
def test_it_answers_as_its_parts_fused_by_hand(folder, query, k, depth, weight):
    deep = min(max(depth, k), len(TEXTS))
    words, meaning = (
        {p.id: p.score for p in open_index(folder.parent / kind).lookup([query], deep)[0]} for kind in ("bm25", "dense")
    )
    if weight is None:
        options = {}
        parts = [{id_: 1 / (60 + rank) for rank, id_ in enumerate(part, start=1)} for part in (words, meaning)]
        rest = [0.0, 0.0]
    else:
        options = {"fusion": "weighted", "lexical_weight": weight}
        weight = weight if words and meaning else float(bool(words))
        best = max(words.values(), default=1.0)
        nearest = max([1.0, *meaning.values()])
        parts = [
            {id_: weight * (score / best) for id_, score in words.items()},
            {id_: (1 - weight) * (score / nearest) for id_, score in meaning.items()},
        ]
        rest = [min(parts[0].values(), default=0.0) if len(words) == deep else 0.0, min(parts[1].values(), default=0.0)]
    totals = {id_: parts[0].get(id_, rest[0]) + parts[1].get(id_, rest[1]) for id_ in {**words, **meaning}}
    wanted = sorted(totals.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
    index = open_index(folder, depth=depth, **options)
    found = index.lookup([query, "red"], k)[0]
    assert [(p.id, p.score) for p in found] == wanted
    assert len({p.id for p in found}) == len(found)
    (rows, scores), _ = index.rank([query, "red"], k)
    assert [f"p{row}" for row in rows] == [p.id for p in found]
    assert np.allclose(scores, [p.score for p in found])


def test_where_no_word_is_known_the_vectors_stand_alone(folder):
    for options in ({}, {"fusion": "weighted", "lexical_weight": 0.9}):
        found = open_index(folder, **options).lookup(["rediver"], 3)[0]
        assert [p.id for p in found] == [p.id for p in open_index(folder.parent / "dense").lookup(["rediver"], 3)[0]]


def test_it_says_how_many_queries_it_likes_and_holds(folder):
    index = open_index(folder)
    assert (index.batch_size, len(index)) == (open_index(folder.parent / "dense").batch_size, len(TEXTS))
    with pytest.raises(ConfigError, match="the corpus holds 8"):
        index.lookup(["red"], 9)


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 5])
def test_an_interrupted_build_goes_on(corpus, folder, tmp_path, calls):
    left, seen = [calls], []

    def progress(what, done, total):
        seen.append(what)
        left[0] -= 1
        if left[0] == 0:
            raise Interrupted

    options = {**ENCODER, "k1": 1.2, "shard": 3}
    with pytest.raises(Interrupted):
        build_index(corpus, "hybrid", tmp_path / "i", options=options, progress=progress)
    build_index(corpus, "hybrid", tmp_path / "i", options=options, resume=True, progress=progress)
    assert files(tmp_path / "i") == files(folder)
    if calls > 3:  # words were done
        assert seen.count("passages counted") == 1


def test_the_memory_of_both_is_said(corpus, tmp_path):
    said = []
    build_index(corpus, "hybrid", tmp_path / "i", options=ENCODER, say=said.append)
    assert "MB for BM25" in said[0]
    assert "MB for vectors" in said[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k2": 1}, "did you mean 'index.k1'"),
        ({"shrad": 1}, "did you mean 'index.shard'"),
        ({"lexical_wieght": 1}, "did you mean 'index.lexical_weight'"),
        ({"fusion": "sum"}, "one of 'rrf', 'weighted'"),
        ({"lexical_weight": 0.5}, "does nothing with fusion = 'rrf'"),
        ({"lexical_weight": 2, "fusion": "weighted"}, "lexical_weight"),
        ({"stemmer": "klingon"}, "klingon"),
        ({"shard": 0}, "shard"),
    ],
)
def test_options_of_both_are_checked(corpus, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        build_index(corpus, "hybrid", tmp_path / "i", options={**ENCODER, **options})
    assert os.listdir(tmp_path) == []


def test_an_option_of_both_goes_to_both(corpus, tmp_path):
    info = build_index(corpus, "hybrid", tmp_path / "i", options={**ENCODER, "title": False})
    assert info.options["bm25"]["analysis"]["title"] is False
    assert info.options["dense"]["encoder"]["title"] is False


def test_how_it_is_fused_can_be_set_for_an_opening(corpus, folder, tmp_path):
    assert open_index(folder, depth=3).fusion.depth == 3
    weighted = open_index(folder, fusion="weighted").fusion
    assert (weighted.depth, weighted.lexical_weight) == (30, 0.3)
    build_index(corpus, "hybrid", tmp_path / "i", options={**ENCODER, "fusion": "weighted", "lexical_weight": 0.6})
    assert open_index(tmp_path / "i", depth=7).fusion.lexical_weight == 0.6
    assert open_index(tmp_path / "i", fusion="rrf").fusion.lexical_weight is None
    for options, message in (
        ({"lexical_weight": 0.5}, "does nothing with fusion = 'rrf'"),
        ({"weight": 0.5}, r"did you mean 'reader\.lexical_weight'"),
        ({"ef_serach": 3}, r"did you mean 'reader\.ef_search'"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_index(folder, **options)


@pytest.mark.parametrize(
    "change", [{"fusion": None}, {"fusion": {"method": "sum"}}, {"bm25": None}, {"dense": 3}, {"bm25": 3}]
)
def test_a_folder_that_does_not_say_how_is_refused(corpus, tmp_path, change):
    build_index(corpus, "hybrid", tmp_path / "i", options=ENCODER)
    said = json.loads((tmp_path / "i" / INDEX).read_text())
    said["options"] = {name: each for name, each in (said["options"] | change).items() if each is not None}
    (tmp_path / "i" / INDEX).write_text(json.dumps(said))
    with pytest.raises(IndexFolderError, match="build it again"):
        open_index(tmp_path / "i")


def test_a_run_searches_it_with_options(folder, tmp_path):
    write_questions(tmp_path / "q.jsonl", [Question(id="1", text="red", answers=("tower",), supporting_titles=("x",))])
    words = ["search=indexed", f"search.path={folder}", "search.options.fusion=weighted"]
    config = load(None, [f"data.questions={tmp_path / 'q.jsonl'}", *words, "search.options.lexical_weight=1"])
    found = asyncio.run(build.retriever(config, build.dataset(config, "eval")).search(["river"], 1))
    assert [p.id for p in found[0]] == [open_index(folder.parent / "bm25").lookup(["river"], 1)[0][0].id]


def run(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_commands_build_and_ask_it(corpus, tmp_path):
    words = ["encoder=letters:Letters", "encoder.options={weight = 2.0}", "k1=1.2", "depth=5"]
    made = run("index", corpus, "--kind", "hybrid", "--out", tmp_path / "i", *words, "--json")
    assert (made["kind"], made["passages"]) == ("hybrid", len(TEXTS))
    options = read_info(tmp_path / "i").options
    assert (options["bm25"]["k1"], options["dense"]["encoder"]["settings"]) == (1.2, {"weight": 2.0})
    assert options["fusion"]["depth"] == 5
    index = open_index(tmp_path / "i")
    for opening in ({}, {"fusion": "weighted", "lexical_weight": 0.4}):
        given = [f"{name}={value}" for name, value in opening.items()]
        found = run("search", tmp_path / "i", "red river", *given, "--k", 3, "--json")["results"]
        wanted = open_index(tmp_path / "i", **opening).lookup(["red river"], 3)[0]
        assert [(each["id"], each["score"]) for each in found] == [(p.id, p.score) for p in wanted]
    (tmp_path / "q.jsonl").write_text('{"question": "red river", "positive_ids": ["p5"]}\n')
    measured = run("recall", tmp_path / "i", tmp_path / "q.jsonl", "--k", "1,3", "--json")
    assert measured["recall"]["3"] == float("p5" in [p.id for p in index.lookup(["red river"], 3)[0]])
