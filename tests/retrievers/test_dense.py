import json
import shutil

import numpy as np
import pytest
from tiny_encoders import Numbers, bert, sentence_files
from typer.testing import CliRunner

from forage import build
from forage.cli import app
from forage.configure import load
from forage.datasets.jsonl import write_passages, write_questions
from forage.encoders.transformer import TransformerEncoder
from forage.errors import CheckpointError, ConfigError, DataError, IndexFolderError, MissingExtra, RetrieverError
from forage.indexing.build import build_index
from forage.indexing.folder import INDEX, read_info
from forage.retrievers.indexed import open_index
from forage.server.serve import open_folder
from forage.types import Passage, Question

WORDS = ["red", "blue", "tower", "river", "the", "of"]
PASSAGES = [
    Passage(str(row), WORDS[row % 6], " ".join(WORDS[(row * n) % 6] for n in range(2, 3 + row % 5)))
    for row in range(20)
]
LENGTHS, NUMBERS = {"encoder": "tiny_encoders:Lengths"}, {"encoder": "tiny_encoders:Numbers"}


def run(*words):
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != INDEX}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("dense")
    bert(place / "model")
    sentence_files(place / "model", prompts={"query": "query: "})
    write_passages(place / "c.jsonl", PASSAGES)
    run("index", place / "c.jsonl", "--kind", "dense", "--out", place / "index", f"encoder.path={place / 'model'}")
    return place


@pytest.fixture
def corpus(tmp_path):
    write_passages(tmp_path / "c.jsonl", PASSAGES)
    return tmp_path / "c.jsonl"


def changed(place, tmp_path, change):
    """The index with something else in its options."""
    shutil.copytree(place / "index", tmp_path / "index")
    said = json.loads((tmp_path / "index" / INDEX).read_text())
    change(said["options"])
    (tmp_path / "index" / INDEX).write_text(json.dumps(said))
    return tmp_path / "index"


def test_an_index_finds_what_its_encoder_says(place):
    index, encoder = open_index(place / "index"), TransformerEncoder(path=str(place / "model"))
    vectors = encoder.encode_passages([f"{p.title} {p.text}" for p in PASSAGES]).astype(np.float16)
    query = encoder.encode_queries(["blue tower"])
    scores = (vectors.astype(np.float64) @ query[0].astype(np.float64)).astype(np.float32)
    order = np.lexsort((np.arange(20), -scores))
    found = index.lookup(["blue tower"], 5)[0]
    assert [p.id for p in found] == [PASSAGES[row].id for row in order[:5]]
    np.testing.assert_allclose([p.score for p in found], scores[order[:5]], atol=1e-3)
    assert found[0].text == PASSAGES[int(found[0].id)].text


def test_it_says_how_it_was_encoded(place):
    said = read_info(place / "index").options
    settings = said["encoder"]["settings"]
    assert (settings["query_prefix"], settings["pooling"], settings["max_tokens"]) == ("query: ", "mean", 24)
    assert said["encoder"]["options"]["path"] == str(place / "model")
    assert (said["structure"]["kind"], said["vectors"], said["encoder"]["dimensions"]) == ("flat", "encoded", 16)
    assert {"faiss-cpu", "torch", "transformers"} <= {*read_info(place / "index").versions}


def test_commands_and_runs_search_it(place, tmp_path):
    found = json.loads(run("search", place / "index", "blue tower", "--k", 2, "--json"))
    assert len(found["results"]) == 2
    asked = [Question(id="1", text="blue tower", answers=("red",), supporting_titles=("blue",))]
    write_questions(tmp_path / "q.jsonl", asked)
    measured = json.loads(run("recall", place / "index", tmp_path / "q.jsonl", "--k", "3,20", "--json"))
    assert measured["recall"]["20"] == 1.0
    opened = open_folder(place / "index")
    assert (opened.index.batch_size, len(opened.index)) == (32, 20)
    words = [f"data.questions={tmp_path / 'q.jsonl'}", "search=indexed", f"search.path={place / 'index'}"]
    config = load(None, [*words, "search.options.encoder_device=cpu"])
    assert build.retriever(config, build.dataset(config, "eval")).in_process


def test_odd_queries_are_answered_and_empty_ones_find_nothing(place):
    index = open_index(place / "index")
    found = index.lookup(["", " \n", "blue tower " * 9000, "?!", "\ud800 red", "\x00", "blue tower"], 3)
    assert [len(each) for each in found] == [0, 0, 3, 3, 3, 3, 3]
    assert index.lookup([""], 3) == [[]]
    assert index.lookup([], 3) == []
    assert len(index.lookup(["red"], 20)[0]) == 20
    for k in (0, 21):
        with pytest.raises(ConfigError, match=rf"search.k = {k}, but the corpus holds 20 passages"):
            index.lookup(["red"], k)


def test_ties_go_to_the_earlier_passage(corpus, tmp_path):
    build_index(corpus, "dense", tmp_path / "index", options=LENGTHS)
    found = open_index(tmp_path / "index").lookup(["blue blue"] * 5, 20)
    assert all(each == found[0] for each in found)
    keys = [(-p.score, int(p.id)) for p in found[0]]
    assert keys == sorted(keys)
    assert len({p.score for p in found[0]}) < 20


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(("structure", "calls"), [("flat", 1), ("flat", 2), ("flat", 4), ("hnsw", 3), ("hnsw", 6)])
def test_an_interrupted_build_that_is_resumed_ends_as_one_that_was_not(corpus, tmp_path, calls, structure):
    left = [calls]

    def progress(what, done, total):
        left[0] -= 1
        if left[0] == 0:
            raise Interrupted

    options = {**LENGTHS, "shard": 6, "structure": structure}
    build_index(corpus, "dense", tmp_path / "whole", options=options)
    with pytest.raises(Interrupted):
        build_index(corpus, "dense", tmp_path / "index", options=options, progress=progress)
    assert not (tmp_path / "index").exists()
    build_index(corpus, "dense", tmp_path / "index", options=options, resume=True)
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")


@pytest.mark.parametrize("stage", ["passages encoded", "passages in the hnsw structure"])
def test_a_build_is_not_resumed_with_other_weights(corpus, tmp_path, stage):
    def interrupt(what, done, total):
        if what == stage:
            raise Interrupted

    bert(tmp_path / "model")
    options = {"encoder.path": str(tmp_path / "model"), "encoder.family": "plain", "structure": "hnsw", "shard": 5}
    with pytest.raises(Interrupted):
        build_index(corpus, "dense", tmp_path / "index", options=options, progress=interrupt)
    bert(tmp_path / "model", seed=1)
    with pytest.raises(IndexFolderError, match="the model has changed since"):
        build_index(corpus, "dense", tmp_path / "index", options=options, resume=True)


def test_vectors_can_be_brought(corpus, tmp_path):
    vectors = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    options = {**NUMBERS, "vectors": tmp_path / "v.npy"}
    info = build_index(corpus, "dense", tmp_path / "index", options=options)
    assert info.options["vectors"] == "brought"
    held = np.load(tmp_path / "index" / "dense.vectors.npy")
    np.testing.assert_array_equal(held, vectors.astype(np.float16))
    found = open_index(tmp_path / "index").lookup([" ".join(map(str, vectors[7]))], 1)[0]
    assert found[0].id == "7"


def spoiled(rows=20, dimensions=16, **at):
    vectors = np.ones((rows, dimensions), np.float32)
    for row, value in at.items():
        vectors[int(row[1:])] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (spoiled(19), r"holds \[19, 16\] of float32, and the passages need floats \[20, 16\]"),
        (spoiled(20, 8), r"holds \[20, 8\]"),
        (spoiled(r3=np.nan), "not finite"),
        (spoiled(r3=0), "row 3 is all zeros"),
        (spoiled(r3=1e9), "too large for float16"),
        (spoiled().astype(np.int64), "of int64"),
    ],
)
def test_vectors_that_are_none_are_refused(corpus, tmp_path, vectors, message):
    np.save(tmp_path / "v.npy", vectors)
    with pytest.raises(DataError, match=message):
        build_index(corpus, "dense", tmp_path / "index", options={**NUMBERS, "vectors": tmp_path / "v.npy"})


def test_a_file_that_holds_no_vectors_is_refused(corpus, tmp_path):
    (tmp_path / "v.npy").write_bytes(b"no vectors")
    np.savez(tmp_path / "v.npz", spoiled())
    for name, message in (("v.npy", "that can be read"), ("v.npz", "it is an archive of arrays; save one as .npy")):
        with pytest.raises(DataError, match=f"holds no vectors .*{message}"):
            build_index(corpus, "dense", tmp_path / "other", options={**NUMBERS, "vectors": tmp_path / name})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ConfigError, r"encoder\.path is missing"),
        ({"encoder.path": "nowhere/at/all"}, CheckpointError, "does not exist"),
        ({**NUMBERS, "structure": "hnws"}, ConfigError, "did you mean 'hnsw'"),
        ({**NUMBERS, "encoder.family": "e5"}, ConfigError, r"encoder\.family is unknown"),
        ({**NUMBERS, "hnsw_m": 1}, ConfigError, ">= 2"),
        ({**NUMBERS, "hnsw_m": 16}, ConfigError, "hnsw_m does nothing with structure = 'flat': it is for hnsw"),
        ({**NUMBERS, "structure": "hnsw", "nprobe": 9}, ConfigError, "nprobe does nothing with structure = 'hnsw'"),
        ({**NUMBERS, "structure": "ivfpq", "pq_m": 7}, ConfigError, "pq_m = 7, but it must divide"),
        ({**NUMBERS, "vectors": "no/such.npy"}, DataError, "holds no vectors that can be read"),
        ({**NUMBERS, "vectors": "v.npy", "shard": 9}, ConfigError, "shard does nothing with vectors"),
        (
            {"encoder.path": "a", "encoder_options": {"path": "b"}},
            ConfigError,
            r"both encoder_path and encoder_options\.path",
        ),
        ({"encoder": "tarot"}, ConfigError, "encoder.kind = 'tarot' is unknown"),
    ],
)
def test_options_that_are_not_usable_leave_nothing_behind(corpus, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        build_index(corpus, "dense", tmp_path / "index", options=options)
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


def test_an_opening_refuses_what_does_nothing(place):
    with pytest.raises(ConfigError, match="ef_search does nothing with structure = 'flat': it is for hnsw"):
        open_index(place / "index", ef_search=9)


def test_few_passages_have_codes_too(corpus, tmp_path):
    for structure in ("flat", "ivfpq"):
        build_index(corpus, "dense", tmp_path / structure, options={**LENGTHS, "structure": structure})
    every, coded = (open_index(tmp_path / structure).lookup(["red blue"], 20) for structure in ("flat", "ivfpq"))
    assert coded == every
    write_passages(tmp_path / "one.jsonl", PASSAGES[:1])
    build_index(tmp_path / "one.jsonl", "dense", tmp_path / "one", options={**LENGTHS, "structure": "ivfpq"})
    assert len(open_index(tmp_path / "one").lookup(["red"], 1)[0]) == 1


def test_an_encoder_that_gives_no_vectors_is_named(corpus, tmp_path):
    build_index(corpus, "dense", tmp_path / "index", options=LENGTHS)
    for fails, message in (("finite", "not finite"), ("shape", r"gave vectors \[1, 3\] for 1 queries, not \[1, 4\]")):
        folder = changed(tmp_path, tmp_path / fails, lambda said, f=fails: said["encoder"]["options"].update(fails=f))
        with pytest.raises(RetrieverError, match=f"tiny_encoders:Lengths.*{message}"):
            open_index(folder).lookup(["red"], 3)


def test_another_encoder_is_refused(place, tmp_path):
    bert(tmp_path / "other", seed=1)
    sentence_files(tmp_path / "other", prompts={"query": "query: "})
    with pytest.raises(IndexFolderError, match=r"another encoder than transformer .*: its weights differ"):
        open_index(place / "index", encoder_path=str(tmp_path / "other"))
    bert(tmp_path / "small", size=8)
    sentence_files(tmp_path / "small")
    with pytest.raises(IndexFolderError, match=r"vectors of 16 dimensions, and the encoder .* gives 8"):
        open_index(place / "index", encoder_path=str(tmp_path / "small"))
    with pytest.raises(IndexFolderError, match=r"nowhere does not exist.*say so with encoder_path="):
        open_index(place / "index", encoder_path=str(tmp_path / "nowhere"))
    shutil.copytree(place / "model", tmp_path / "moved")
    moved = open_index(place / "index", encoder_path=str(tmp_path / "moved"), encoder_dtype="float32")
    assert len(moved.lookup(["red"], 3)[0]) == 3


def test_the_settings_of_the_index_stand_whatever_the_model_says_now(place, tmp_path):
    shutil.copytree(place / "model", tmp_path / "model")
    sentence_files(tmp_path / "model", pooling="cls_token", prompts={"query": "passage: "})
    index = open_index(place / "index", encoder_path=str(tmp_path / "model"))
    assert index.lookup(["red"], 3) == open_index(place / "index").lookup(["red"], 3)


def test_a_tokenizer_that_was_exchanged_is_noticed(place, tmp_path):
    shutil.copytree(place / "model", tmp_path / "model")
    said = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    words = said["model"]["vocab"]
    words["red"], words["river"], words["the"], words["[UNK]"] = words["river"], words["[UNK]"], words["red"], 8
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(said))
    with pytest.raises(IndexFolderError, match="does not give the vectors of"):
        open_index(place / "index", encoder_path=str(tmp_path / "model"))


def drop_encoder(said):
    del said["encoder"]


def grow(said):
    said["encoder"]["dimensions"] = 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_encoder, "does not say how it was encoded"),
        (lambda said: said["structure"].update(kind="tree"), "does not say how it was encoded"),
        (lambda said: said["encoder"]["settings"].update(weights="0" * 64), "its weights differ"),
        (grow, r"holds \[20, 16\] of float16, not \[20, 8\]"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(place, tmp_path, change, message):
    with pytest.raises(IndexFolderError, match=message):
        open_index(changed(place, tmp_path, change))


def test_vectors_that_are_cut_short_are_named(place, tmp_path):
    folder = changed(place, tmp_path, lambda said: None)
    path = folder / "dense.vectors.npy"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(IndexFolderError, match=r"dense\.vectors\.npy is cut short"):
        open_index(folder)


def test_what_a_missing_library_says():
    assert "pip install 'forage-rl[dense]'" in str(MissingExtra("faiss-cpu", "dense"))


def test_encoders_of_ones_own_need_no_settings(corpus, tmp_path):
    assert not hasattr(Numbers(), "settings")
    build_index(
        corpus, "dense", tmp_path / "index", options={**LENGTHS, "encoder_options": {"fails": ""}, "title": False}
    )
    said = read_info(tmp_path / "index").options["encoder"]
    assert said == {
        "kind": "tiny_encoders:Lengths",
        "options": {"fails": ""},
        "settings": {},
        "dimensions": 4,
        "title": False,
    }
