"""Duplicates: what is left out is like something that is kept, nothing else is, and nothing is missed."""

import json
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forage.datasets.jsonl import write_passages
from forage.errors import ConfigError, DataError, IndexFolderError
from forage.indexing.build import build_index
from forage.indexing.corpus import read_passages
from forage.indexing.duplicates import REMOVED, Deduplication, dedupe_corpus, find_duplicates, read_removed
from forage.indexing.folder import read_info
from forage.indexing.shingles import jaccard, shingles
from forage.indexing.store import PassageStore, StoreWriter
from forage.recall import duplicates_of, measure_recall, read_judged
from forage.retrievers.indexed import IndexedRetriever, open_index
from forage.types import Passage

LONG = "the red tower by the old river was built of grey stone in the year 1871 by two brothers"
NEAR = LONG.replace("grey", "pale")
OTHER = "salt ships sail north every spring and come back with copper"
THRESHOLDS = st.sampled_from([0.2, 0.34, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])

lines = st.lists(st.sampled_from(["a", "A", "b", "c", "d,", "北京", "é", "e\u0301"]), max_size=9).map(" ".join)
corpora = st.lists(st.tuples(st.sampled_from(["", "t"]), lines), min_size=1, max_size=14)


def passages(rows):
    return [Passage(f"p{row}", title, text) for row, (title, text) in enumerate(rows)]


def quiet(what, done, total):
    pass


def left_out(folder, given, **options):
    """Row -> (row of the one that stands for it, similarity)."""
    with StoreWriter(folder) as writer:
        for passage in given:
            writer.add(passage)
    found = find_duplicates(PassageStore(folder), Deduplication(**options), quiet)
    return {match.row: (match.kept, match.similarity) for match in found}


def by_every_pair(given, near):
    """The same, by comparing each with every one that is kept before it."""
    found, sets = {}, [shingles(passage) for passage in given]
    for row, these in enumerate(sets):
        for kept in range(row):
            if kept not in found and jaccard(these, sets[kept]) >= near:
                found[row] = (kept, jaccard(these, sets[kept]))
                break
    return found


@settings(deadline=None, max_examples=150)
@given(corpora, THRESHOLDS)
@example([("", "")] * 2 + [("t", "a b c")] * 3, 1.0)
def test_near_duplicates_are_those_that_comparing_every_pair_finds(tmp_path_factory, rows, near):
    given = passages(rows)
    found = left_out(tmp_path_factory.mktemp("store"), given, duplicates="near", near=near)
    assert found == by_every_pair(given, near)
    assert all(similarity >= near and kept not in found for kept, similarity in found.values())


@settings(deadline=None, max_examples=50)
@given(corpora, THRESHOLDS, st.sampled_from(["exact", "near"]))
def test_what_is_left_has_no_more_of_them_and_keeps_its_order(tmp_path_factory, rows, near, duplicates):
    given = passages([(title, text or "?") for title, text in rows])  # a file may hold no empty ones
    folder = tmp_path_factory.mktemp("corpus")
    chosen = Deduplication(duplicates, near if duplicates == "near" else None)
    write_passages(folder / "all.jsonl", given)
    first = dedupe_corpus(folder / "all.jsonl", folder / "once.jsonl", chosen)
    again = dedupe_corpus(folder / "once.jsonl", folder / "twice.jsonl", chosen)
    assert (first["passages"] + first["removed"], again["removed"]) == (len(given), 0)
    assert (folder / "once.jsonl").read_bytes() == (folder / "twice.jsonl").read_bytes()
    kept = list(read_passages(folder / "once.jsonl"))
    gone = {each.removed for each in read_removed(folder / "once.jsonl.removed")}
    assert kept == [passage for passage in given if passage.id not in gone]
    assert {each.kept for each in read_removed(folder / "once.jsonl.removed")} <= {passage.id for passage in kept}


def test_equal_is_what_differs_in_case_and_white_space_alone(tmp_path):
    rows = [("A", "b  c"), ("a", "B\nC "), ("a b", "c"), ("a", "b c."), ("a", "b\u00a0c"), ("é", "x"), ("e\u0301", "x")]
    assert left_out(tmp_path, passages(rows), duplicates="exact") == {1: (0, 1.0), 4: (0, 1.0), 6: (5, 1.0)}


def test_scripts_without_spaces_are_compared_by_letters(tmp_path):
    text = "北京是中华人民共和国的首都也是全国的政治中心"
    assert left_out(tmp_path, passages([("", text), ("", text[:-1])]), duplicates="near", near=0.9) == {
        1: (0, pytest.approx(19 / 20))
    }


def test_a_whole_block_and_more_is_looked_at(tmp_path):
    given = passages([("", f"number {row % 9000} of the many passages in {row % 9000} blocks") for row in range(9100)])
    found = left_out(tmp_path, given, duplicates="near", near=1.0)
    assert found == {row: (row - 9000, 1.0) for row in range(9000, 9100)}


def corpus(folder, *texts):
    path = folder / "corpus.jsonl"
    write_passages(path, passages([(f"title {row % 2}", text) for row, text in enumerate(texts)]))
    return path


def test_an_index_without_duplicates_says_what_it_left_out(tmp_path):
    path, said = corpus(tmp_path, LONG, OTHER, NEAR, LONG), []
    info = build_index(path, "bm25", tmp_path / "index", options={"duplicates": "near", "near": 0.6}, say=said.append)
    assert (info.passages, info.deduplicated.near, info.deduplicated.removed) == (2, 0.6, 2)
    assert info == read_info(tmp_path / "index")
    assert [json.loads(line) for line in (tmp_path / "index" / REMOVED).read_text().splitlines()] == [
        {"removed": "p2", "kept": "p0", "similarity": pytest.approx(16 / 22, abs=1e-4), "title": "title 0"},
        {"removed": "p3", "kept": "p0", "similarity": pytest.approx(17 / 21, abs=1e-4), "title": "title 1"},
    ]
    assert [p.id for p in open_index(tmp_path / "index").lookup(["tower"], 2)[0]] == ["p0"]
    assert "to find duplicates" in said[0]
    assert not [name for name in os.listdir(tmp_path / "index") if name.startswith(".")]


def test_a_corpus_is_that_of_an_index_without_its_duplicates(tmp_path):
    path = corpus(tmp_path, LONG, LONG.upper(), LONG, OTHER)
    build_index(path, "bm25", tmp_path / "index", options={"duplicates": "exact"})
    assert len(IndexedRetriever(read_passages(path), path=tmp_path / "index")) == 3
    corpus(tmp_path, LONG, OTHER)
    with pytest.raises(IndexFolderError, match="of another corpus"):
        IndexedRetriever(read_passages(path), path=tmp_path / "index")


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stage", ["passages read", "passages counted by shingles", "passages compared", "pairs"])
def test_an_interrupted_build_is_gone_on_with(tmp_path, stage):
    path, options = corpus(tmp_path, LONG, OTHER, NEAR), {"duplicates": "near", "near": 0.6}
    build_index(path, "bm25", tmp_path / "whole", options=options)

    def stop(what, done, total):
        if what.startswith(stage):
            raise Interrupted

    with pytest.raises(Interrupted):
        build_index(path, "bm25", tmp_path / "index", options=options, progress=stop)
    with pytest.raises(IndexFolderError, match="other unique"):
        build_index(path, "bm25", tmp_path / "index", resume=True)
    info = build_index(path, "bm25", tmp_path / "index", options=options, resume=True)
    assert info.files == read_info(tmp_path / "whole").files
    assert info.corpus == read_info(tmp_path / "whole").corpus


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duplicates": "nearly"}, r"index\.duplicates = 'nearly'.*did you mean 'near'"),
        ({"near": 0.8}, "set duplicates=near"),
        ({"duplicates": "near", "near": 0.0}, "above 0"),
        ({"duplicates": "near", "near": "much"}, r"index\.near"),
        ({"duplicate": "near"}, r"did you mean 'index\.duplicates'"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        build_index(corpus(tmp_path, LONG), "bm25", tmp_path / "index", options=options)


def test_recall_finds_what_another_passage_stands_for(tmp_path):
    path = corpus(tmp_path, LONG, OTHER, NEAR, LONG.upper())
    (tmp_path / "q.jsonl").write_text(
        '{"id": "1", "question": "red tower", "positive_ids": ["p2", "p1"]}\n'
        '{"id": "2", "question": "old river", "supporting_titles": ["title 1"]}\n'
    )
    asked = list(read_judged(tmp_path / "q.jsonl"))
    dedupe_corpus(path, tmp_path / "once.jsonl", Deduplication("exact"))
    build_index(tmp_path / "once.jsonl", "bm25", tmp_path / "index", options={"duplicates": "near", "near": 0.6})
    same = duplicates_of(tmp_path / "index", tmp_path / "once.jsonl.removed")
    found = measure_recall(open_index(tmp_path / "index"), asked, (1,), stands_for=same)
    assert (found["recall"], found["mrr"]) == ({"1": 0.75}, 1.0)
    with pytest.raises(DataError, match="no such file"):
        duplicates_of(tmp_path / "index", tmp_path / "nowhere")


def test_nothing_that_is_there_is_written_over(tmp_path):
    path = corpus(tmp_path, LONG, LONG, OTHER)
    before, exact = path.read_bytes(), Deduplication("exact")
    for read in (path, tmp_path):
        with pytest.raises(ConfigError, match=r"is read, and can't be written .*choose another --out"):
            dedupe_corpus(read, path, exact)
    dedupe_corpus(path, tmp_path / "unique.jsonl", exact)
    removed = tmp_path / "unique.jsonl.removed"
    told = removed.read_bytes()
    with pytest.raises(ConfigError, match=r"unique\.jsonl\.removed says what an earlier call left out: remove it"):
        dedupe_corpus(path, tmp_path / "unique.jsonl", Deduplication("near", 0.9))
    assert (path.read_bytes(), removed.read_bytes()) == (before, told)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / REMOVED).write_text('{"id": 3}\n')
    with pytest.raises(DataError, match=r"duplicates\.jsonl:1"):
        duplicates_of(tmp_path)
