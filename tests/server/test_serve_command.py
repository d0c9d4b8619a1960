"""`forage serve` over a real index folder, from the command line, and a run that searches through it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from test_workers import Running

from forage.configure import load
from forage.datasets.fictional import Fictional
from forage.indexing.build import build_index
from forage.training import train_from_config

WORLD = ["data.entities=60"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The passages of a small fictional world, both splits."""
    config = load("smoke", WORLD)
    file = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for split in ("train", "eval"):
            for one in Fictional(split, **config.data.options).passages():
                out.write(json.dumps({"id": f"{split}-{one.id}", "title": one.title, "text": one.text}) + "\n")
    return file


@pytest.fixture
def index(corpus, tmp_path):
    build_index(corpus, "bm25", tmp_path / "index")
    return tmp_path / "index"


@contextmanager
def serving(index, *words):
    process = subprocess.Popen(
        [sys.executable, "-m", "forage", "serve", index, "--port", "0", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    served = Running(process)
    try:
        served.url = served.wait(lambda: served.named("listening"), "the address")[0]["url"]
        served.wait(lambda: served.ask("/health")[0] == 200, "health")
        yield served
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(20)
        served._reader.join(5)
        process.stderr.close()


def test_a_run_searches_through_it(index, corpus, tmp_path):
    with serving(index) as served:
        info = json.loads(served.ask("/v1/info")[1])["index"]
        assert (info["kind"], info["passages"]) == ("bm25", len(corpus.read_text().splitlines()))
        tiny = [*WORLD, "rollout.questions=2", "rollout.samples=2", "train.steps=2", "eval.questions=4"]
        search = ["search=http", f"search.url={served.url}", "search.k=3"]
        folder = tmp_path / "run"
        done = train_from_config(
            load("smoke", [*tiny, *search, "run.threads=1", "tracking.console=false", f"run.dir={folder}"])
        )
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert done["step"] == 2
        assert sum(row["search/queries"] for row in rows if "search/queries" in row) > 0
        assert not any(row.get("search/failures") for row in rows)
        assert 'path="/v1/search",status="200"' in served.ask("/metrics")[1]
    assert served.process.returncode == 0


def test_an_index_that_is_cut_short_under_it_is_named_and_gives_no_wrong_answer(index):
    with serving(index) as served:
        assert served.ask("/v1/search", {"queries": ["who is the founder of the company"]})[0] == 200
        for file in index.iterdir():
            if file.suffix != ".json":
                os.truncate(file, 0)
        seen = set()

        def refused():
            status, body = served.ask("/v1/search", {"queries": [f"founder {len(seen)}"]})
            seen.add((status, body))
            return status == 503 and "cut short" in body

        served.wait(refused, "the refusal")
        assert not [one for one in seen if one[0] == 200], seen
        assert served.named("worker_died")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", "--port", "0"], "is no index"),
        (["nothing", "--port", "0", "--host", "0.0.0.0"], "--insecure"),
        (["nothing", "--port", "0", "--max-k", "2"], "k = 3 is above max_k = 2"),
        (["nothing", "--port", "0", "--token-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE holds no token"),
    ],
)
def test_what_keeps_it_from_starting_is_said(words, message, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "forage", "serve", *words], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
