import hashlib
import json

import pytest
from typer.testing import CliRunner

from forage.cli import app
from forage.datasets.jsonl import write_passages
from forage.errors import ConfigError, DataError
from forage.fuse import fit_fusion
from forage.indexing.build import build_index
from forage.indexing.folder import INDEX, read_info
from forage.recall import measure_recall, read_judged
from forage.retrievers.indexed import open_index
from forage.types import Passage

TEXTS = ["red tower", "wet order", "blue rivers and towers", "the river", "green", "red red river", "zzz", "tower red"]


@pytest.fixture
def folder(tmp_path):
    write_passages(tmp_path / "c.jsonl", [Passage(f"p{row}", f"t{row}", text) for row, text in enumerate(TEXTS)])
    build_index(tmp_path / "c.jsonl", "hybrid", tmp_path / "i", options={"encoder": "letters:Letters", "title": False})
    return tmp_path / "i"


def train(folder, *rows):
    path = folder.parent / "train.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), **row}) + "\n" for n, row in enumerate(rows)))
    return path


def questions(folder):
    return train(
        folder,
        {"question": "river", "positive_ids": ["p3", "p5"]},
        {"question": "deer wot", "positive_ids": ["p1"]},
        {"question": "towers", "supporting_titles": ["t2"]},
        {"question": "no gold here", "answers": ["zzz"]},
    )


def test_what_is_measured_is_what_queries_get_then(folder):
    path = questions(folder)
    found = fit_fusion(folder, path, k=2, keep=False)
    judged = [question for question in read_judged(path) if question.golds]
    assert (found["n"], len(found["tried"]), found["written"]) == (3, 30, False)
    for row in found["tried"][::7]:
        options = {} if row["fusion"] == "rrf" else {"lexical_weight": row["lexical_weight"]}
        index = open_index(folder, fusion=row["fusion"], **options)
        wanted = measure_recall(index, judged, [2, 8])
        assert (wanted["recall"]["2"], wanted["mrr"]) == (pytest.approx(row["recall"]), pytest.approx(row["mrr"]))
        assert row["recall_ci"][0] <= row["recall"] <= row["recall_ci"][1]


def test_the_best_is_written_with_what_it_was_chosen_by(folder):
    path = train(folder, {"question": "deer wot", "positive_ids": ["p1"]}, {"question": "rive", "positive_ids": ["p3"]})
    before = read_info(folder)
    found = fit_fusion(folder, path, k=1)
    best = found["best"]
    assert best["recall"] == max(row["recall"] for row in found["tried"])
    equal = [row for row in found["tried"] if row["recall"] == best["recall"]]
    assert best["mrr"] == max(row["mrr"] for row in equal)
    fusion = read_info(folder).options["fusion"]
    assert fusion["fitted"] == {
        "questions": "train.jsonl",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "n": 2,
        "k": 1,
        "recall": best["recall"],
    }
    index = open_index(folder)
    assert (index.fusion.method, index.fusion.lexical_weight) == (best["fusion"], best["lexical_weight"])
    assert {name: each for name, each in before.options.items() if name != "fusion"} == {
        name: each for name, each in read_info(folder).options.items() if name != "fusion"
    }


def test_of_equal_ones_ranks_are_taken_and_then_the_weight_nearest_to_the_default(folder):
    path = train(folder, {"question": "zzz", "positive_ids": ["p6"]})
    assert fit_fusion(folder, path, k=1)["best"]["fusion"] == "rrf"
    assert open_index(folder).fusion.method == "rrf"
    path = train(folder, {"question": "red tower wet", "positive_ids": ["p7"]})
    found = fit_fusion(folder, path, k=1)
    assert [row["mrr"] for row in found["tried"]] == [pytest.approx(1 / 3)] * 2 + [0.5] * 28
    assert found["best"]["lexical_weight"] == 0.3


def test_a_k_beyond_the_corpus_finds_all(folder):
    found = fit_fusion(folder, train(folder, {"question": "river", "positive_ids": ["p3"]}), k=99, keep=False)
    assert {row["recall"] for row in found["tried"]} == {1.0}


def test_the_command(folder):
    path, runner = questions(folder), CliRunner()
    done = runner.invoke(app, ["fuse", str(folder), str(path), "--k", "2", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "recall@2 of 3 questions" in done.stdout
    assert "lexical_weight=0.35" in done.stdout
    assert "not written" in done.stdout
    assert read_info(folder).options["fusion"]["fitted"] == {}
    done = runner.invoke(app, ["fuse", str(folder), str(path), "--json"])
    assert json.loads(done.stdout)["written"]
    assert read_info(folder).options["fusion"]["fitted"]["k"] == 3
    words = ["fusion=weighted", "lexical_weight=0.5", "--k", "3", "--json"]
    done = runner.invoke(app, ["recall", str(folder), str(path), *words])
    assert json.loads(done.stdout)["judged"] == 3


def test_an_index_whose_encoder_has_moved_is_opened_with_the_new_place(folder):
    path = questions(folder)
    words = ["fuse", str(folder), str(path), "encoder.path=elsewhere", "--dry-run"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "encoder.path is unknown: encoder.kind = 'letters:Letters' has no such option" in done.stderr
    with pytest.raises(ConfigError, match="depth does nothing here: forage fuse tries"):
        fit_fusion(folder, path, options={"depth": 3})


def test_what_makes_no_sense_is_refused(folder):
    path = questions(folder)
    with pytest.raises(ConfigError, match="at least 1"):
        fit_fusion(folder, path, k=0)
    with pytest.raises(DataError, match="no question has `positive_ids`"):
        fit_fusion(folder, train(folder, {"question": "river", "answers": ["x"]}))
    build_index(folder.parent / "c.jsonl", "bm25", folder.parent / "words")
    with pytest.raises(ConfigError, match="is no hybrid index"):
        fit_fusion(folder.parent / "words", path)
    assert (folder / INDEX).exists()
