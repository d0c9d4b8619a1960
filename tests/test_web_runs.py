"""Whole runs that search the web: past their budget, and again without the web."""

import asyncio
import os
import subprocess
import sys

from http_server import reply, serving
from web_services import ROWS, SHAPES

KEY = "sk-0123456789"
SMALL = [
    *("data.entities=60", "rollout.questions=2", "rollout.samples=2", "train.steps=1", "train.save_every=0"),
    *("train.eval_every=0", "run.threads=1", "tracking.console=false", "search=web", "search.provider=serper"),
]


def forage(*words, cwd, **environment):
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "forage", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=120)


async def runs(tmp_path):
    async with serving(lambda asked: reply(SHAPES["serper"](ROWS))) as server:
        where = [f"search.url={server.url}/search", "search.queries_per_s=0"]

        def train(name, *words, **environment):
            return asyncio.to_thread(
                forage,
                "train",
                "smoke",
                *SMALL,
                *where,
                f"run.dir={tmp_path / name}",
                *words,
                cwd=tmp_path,
                **environment,
            )

        poor = await train("poor", "search.budget=1", SERPER_API_KEY=KEY)
        spent = len(server.asked)
        rich = await train("rich", SERPER_API_KEY=KEY)
        asked = len(server.asked)
    again = await train("again", "search.offline=true", SERPER_API_KEY="")
    return poor, spent, rich, asked, again


def test_runs_over_the_web(tmp_path):
    poor, spent, rich, asked, again = asyncio.run(runs(tmp_path))
    assert poor.returncode == 2
    assert "search.budget = 1: that many requests to serper were sent" in poor.stderr
    assert spent == 1
    assert rich.returncode == 0, rich.stderr
    assert asked > 1
    assert again.returncode == 0, again.stderr
    for done in (poor, rich, again):
        assert KEY not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "runs" / "web.sqlite" in written
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def test_a_missing_key_is_said_before_a_model_is_loaded(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")  # can't be loaded
    words = ["train", "smoke", *SMALL, f"model.path={model}", f"run.dir={tmp_path / 'run'}"]
    done = forage(*words, cwd=tmp_path, SERPER_API_KEY="")
    assert (done.returncode, "SERPER_API_KEY" in done.stderr) == (2, True), done.stderr
    done = forage(*words, f"model.path={tmp_path / 'nowhere'}", cwd=tmp_path, SERPER_API_KEY="")
    assert (done.returncode, "nowhere does not exist" in done.stderr) == (1, True), done.stderr
