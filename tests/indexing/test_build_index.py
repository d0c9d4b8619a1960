import json
import math
import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.datasets.jsonl import write_passages
from forage.errors import ConfigError, DataError, IndexFolderError
from forage.indexing.build import build_index, command_line_options
from forage.indexing.folder import INDEX, read_info
from forage.indexing.store import PassageStore
from forage.retrievers.bm25 import BM25Retriever
from forage.retrievers.indexed import open_index
from forage.types import Passage

WORDS = ["red", "Red", "towers", "tower", "river", "the", "Łódź", "北京", "1999"]
TEXTS = ["red tower", "blue rivers and towers", "the river", "green", "red red river"]


def some_text(text):
    """No text is refused; one without a word is not."""
    return text or "?!"


texts = st.lists(
    st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join).map(some_text), min_size=1, max_size=12
).filter(lambda texts: any(set(text.split()) - {"the", "?!"} for text in texts))


def passages(texts):
    return [Passage(f"p{row}", f"title {row % 3}", text) for row, text in enumerate(texts)]


def corpus(folder, texts=TEXTS):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "corpus.jsonl"
    write_passages(path, passages(texts))
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != INDEX}


class Interrupted(Exception):
    pass


def after(calls):
    """A progress that interrupts at its nth call."""
    left = [calls]

    def progress(what, done, total):
        left[0] -= 1
        if left[0] == 0:
            raise Interrupted

    return progress


@settings(deadline=None, max_examples=40)
@given(texts, st.integers(1, 30), st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join))
def test_an_index_on_disk_answers_as_the_one_in_process(tmp_path_factory, texts, run_tokens, query):
    folder = tmp_path_factory.mktemp("index")
    build_index(corpus(folder, texts), "bm25", folder / "index", options={"run_tokens": run_tokens})
    index, here = open_index(folder / "index"), BM25Retriever(passages(texts))
    for k in {1, len(texts)}:
        assert index.lookup([query, "red"], k) == here.lookup([query, "red"], k)


@settings(deadline=None, max_examples=30)
@given(texts, st.integers(1, 30), st.integers(1, 30))
def test_the_size_of_runs_changes_no_byte(tmp_path_factory, texts, first, second):
    folder = tmp_path_factory.mktemp("index")
    path = corpus(folder, texts)
    for name, run_tokens in (("a", first), ("b", second)):
        build_index(path, "bm25", folder / name, options={"run_tokens": run_tokens})
    assert contents(folder / "a") == contents(folder / "b")


@pytest.mark.parametrize("calls", range(1, 8))
def test_an_interrupted_build_that_is_resumed_ends_as_one_that_was_not(tmp_path, calls):
    path = corpus(tmp_path)
    build_index(path, "bm25", tmp_path / "whole", options={"run_tokens": 3})
    with pytest.raises(Interrupted):
        build_index(path, "bm25", tmp_path / "index", options={"run_tokens": 3}, progress=after(calls))
    assert not (tmp_path / "index").exists()
    build_index(path, "bm25", tmp_path / "index", options={"run_tokens": 3}, resume=True)
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")


def test_nothing_is_counted_twice_after_an_interruption(tmp_path):
    path, seen = corpus(tmp_path), []
    with pytest.raises(Interrupted):  # the passages and two runs are done
        build_index(path, "bm25", tmp_path / "index", options={"run_tokens": 3}, progress=after(3))
    build_index(
        path, "bm25", tmp_path / "index", options={"run_tokens": 3}, resume=True, progress=lambda *at: seen.append(at)
    )
    assert seen[0][:2] == ("passages counted", 3)


def test_the_index_says_what_it_is(tmp_path):
    path, said = corpus(tmp_path), []
    info = build_index(path, "bm25", tmp_path / "index", options={"k1": 1.2, "stemmer": "none"}, say=said.append)
    assert info == read_info(tmp_path / "index")
    assert (info.kind, info.passages, info.sources[0].path) == ("bm25", 5, str(path))
    assert (info.options["k1"], info.options["analysis"]["stemmer"]) == (1.2, "none")
    assert "the" in info.options["analysis"]["stopwords"]
    assert info.corpus == PassageStore(tmp_path / "index").digest()
    assert "memory: about" in said[0]
    assert {*info.files, INDEX} == set(os.listdir(tmp_path / "index"))


def test_words_of_a_command_line_are_options():
    chosen = command_line_options(["k1=1.2", "stemmer=none", "encoder.path=models/e5"])
    assert [setting.value for setting in chosen.values()] == [1.2, "none", "models/e5"]
    with pytest.raises(ConfigError, match="expected key=value"):
        command_line_options(["k1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k2": 1}, "did you mean 'index.k1'"),
        ({"stemmer": "klingon"}, "klingon"),
        ({"k1": "x"}, "k1"),
        ({"b": 2}, "b"),
        ({"max_line_mb": 0}, "max_line_mb"),
    ],
)
def test_options_that_are_not_usable_leave_nothing_behind(tmp_path, options, message):
    path = corpus(tmp_path)
    with pytest.raises(ConfigError, match=message):
        build_index(path, "bm25", tmp_path / "index", options=options)
    assert os.listdir(tmp_path) == ["corpus.jsonl"]


def test_a_gigantic_line_is_refused(tmp_path):
    path = corpus(tmp_path, ["red " * 300_000])
    build_index(path, "bm25", tmp_path / "index")
    with pytest.raises(DataError, match=r":1: the line is longer"):
        build_index(path, "bm25", tmp_path / "other", options={"max_line_mb": 1})


def test_a_folder_that_is_taken_is_left_alone(tmp_path):
    path = corpus(tmp_path)
    build_index(path, "bm25", tmp_path / "index")
    with pytest.raises(IndexFolderError, match="there is an index"):
        build_index(path, "bm25", tmp_path / "index")
    with pytest.raises(IndexFolderError, match="is no index"):
        build_index(path, "bm25", tmp_path)


def test_an_unfinished_index_is_resumed_only_where_that_is_said_and_with_the_same(tmp_path):
    path, out = corpus(tmp_path), tmp_path / "index"
    with pytest.raises(Interrupted):
        build_index(path, "bm25", out, progress=after(1))
    with pytest.raises(IndexFolderError, match="go on with --resume"):
        build_index(path, "bm25", out)
    with pytest.raises(IndexFolderError, match="other options"):
        build_index(path, "bm25", out, options={"k1": 1.0}, resume=True)
    begun = out.with_name("index.partial") / ".begun.json"
    kept = begun.read_bytes()
    for other in (b"", b"{}", b'{"kind": "bm25", "options": {}}'):
        begun.write_bytes(other)
        with pytest.raises(IndexFolderError, match="begun by another version of Forage, or is broken: remove"):
            build_index(path, "bm25", out, resume=True)
    begun.write_bytes(kept)
    corpus(tmp_path, [*TEXTS, "more"])
    with pytest.raises(IndexFolderError, match="other sources"):
        build_index(path, "bm25", out, resume=True)


def built(tmp_path):
    build_index(corpus(tmp_path), "bm25", tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize("name", ["passages.bin", "passages.offsets.npy", "bm25.rows.npy", "bm25.words.npy"])
def test_a_file_that_is_cut_short_or_missing_is_named(tmp_path, name):
    folder = built(tmp_path)
    path = folder / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(IndexFolderError, match=f"{name} is cut short"):
        open_index(folder)
    path.unlink()
    with pytest.raises(IndexFolderError, match=f"{name} is missing"):
        open_index(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "is of format 99"),
        ({"kind": "tarot"}, "kind 'tarot'"),
        ({"passages": "many"}, "is broken"),
        ({"passages": 7}, "holds 5 passages, not 7"),
        ({"options": {}}, "does not say how its words were read"),
        ({"options": {"analysis": {"stemmer": "none", "stopwords": 3}}}, "does not say how its words were read"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path, change, message):
    folder = built(tmp_path)
    said = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(said | change))
    with pytest.raises(IndexFolderError, match=message):
        open_index(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "bm25"}', "\xff"])
def test_a_broken_description_is_refused(tmp_path, text):
    (tmp_path / INDEX).write_bytes(text.encode("latin-1"))
    with pytest.raises(IndexFolderError, match=r"is broken|is of format None"):
        open_index(tmp_path)


def test_what_is_no_index_is_refused(tmp_path):
    with pytest.raises(IndexFolderError, match="is no index"):
        open_index(tmp_path)
    with pytest.raises(ConfigError, match=r"reader\.colour is unknown"):
        open_index(built(tmp_path), colour="red")


@pytest.mark.parametrize("texts", [["the", "of and"], ["?!"]])
def test_a_corpus_without_words_is_refused(tmp_path, texts):
    (tmp_path / "c.jsonl").write_bytes(
        b"\n".join(msgspec.json.encode({"id": str(row), "text": text}) for row, text in enumerate(texts))
    )
    with pytest.raises(DataError, match="holds a word"):
        build_index(tmp_path / "c.jsonl", "bm25", tmp_path / "index")


def test_a_passage_without_words_is_never_found_and_keeps_its_row(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": 0, "text": "?!"}\n{"id": 1, "text": "red"}\n')
    build_index(path, "bm25", tmp_path / "index")
    assert [p.id for p in open_index(tmp_path / "index").lookup(["red"], 2)[0]] == ["1"]


def test_long_and_odd_queries_are_answered(tmp_path):
    index = open_index(built(tmp_path))
    long = "red tower " * 10_000
    found = index.lookup([long, "", "?!", "\ud800 red", "\x00"], 2)
    assert [p.id for p in found[0]] == [p.id for p in index.lookup(["red tower"], 2)[0]]
    assert math.isclose(found[0][0].score, 10_000 * index.lookup(["red tower"], 1)[0][0].score, rel_tol=1e-3)
    assert [len(each) for each in found[1:]] == [0, 0, 2, 0]


def test_a_k_beyond_the_corpus_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the corpus holds 5 passages"):
        open_index(built(tmp_path)).lookup(["red"], 6)
