"""The command as a shell sees it: output, messages and exit codes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from forage.boundary import again, check_words, reported
from forage.cli import app
from forage.configure import load, recipes
from forage.errors import ConfigError, DataError
from forage.needs import needs
from forage.output import summary_text


def run(*words: str):
    return CliRunner().invoke(app, list(words))


def shell(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forage.cli", *words], capture_output=True, text=True, env={**os.environ, **variables}
    )


def test_recipes_are_listed_with_their_line():
    done = run("recipes")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == len(recipes())
    assert json.loads(run("recipes", "--json").stdout) == recipes()


def test_a_dry_run_prints_a_configuration_that_can_be_used(tmp_path):
    done = run("train", "smoke", "run.seed=5", "data.questions=q.jsonl", "data.corpus=c.jsonl", "--dry-run")
    assert done.exit_code == 0
    assert "note: data.kind is jsonl, because data.questions is set" in done.stderr
    assert (
        "note: data.kind is jsonl, no longer fictional: left out data.hops = [1, 2, 3] (in recipe demo)" in done.stderr
    )
    (tmp_path / "again.toml").write_text(done.stdout, "utf-8")
    assert load(tmp_path / "again.toml").run.seed == 5
    assert "# 8 steps; each plays 8 questions x 4 = 32 episodes" in done.stdout


def test_a_dry_run_refuses_what_does_not_go_together():
    done = run("train", "smoke", "algorithm.advantage=gae", "--dry-run")
    assert done.exit_code == 2
    assert "set critic=own" in done.output
    assert run("train", "smoke", "rollout.samples=1", "--dry-run").exit_code == 2


def test_a_dry_run_tells_what_has_to_be_set():
    done = run("train", "smoke", "data.questions=q.jsonl", "--dry-run")
    assert done.exit_code == 0
    assert "# still to be set: data.corpus" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "smoke", "train.step=1"], "did you mean 'train.steps'?"),
        (["train", "smok"], "did you mean 'smoke'?"),
        (["train", "smoke", "data.questions=q.jsonl"], "data.corpus is missing"),
        (["eval", "nowhere"], "nowhere is no run's folder"),
        (["ask", "nowhere", "Who?"], "nowhere is no run's folder"),
        (["train"], "NAME|FILE.toml"),
        (["train", "smoke", "--resum"], "--resum"),
        (["search", "c.jsonl", "q", "--k", "0"], "--k"),
    ],
)
def test_wrong_usage_exits_with_2(words, message):
    done = run(*words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not done.stdout


def test_a_failure_is_one_message_and_exits_with_1(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"id": "1", "text": "a"}\n{"id": ', "utf-8")
    done = shell("search", str(tmp_path / "c.jsonl"), "a", "--json")
    assert done.returncode == 1
    assert f"{tmp_path}/c.jsonl:2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(("words", "variables"), [(["--debug"], {}), ([], {"FORAGE_DEBUG": "1"})])
def test_debug_shows_the_traceback(words, variables):
    done = shell("search", "none.jsonl", "a", *words, **variables)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_world_is_written_and_searched(tmp_path):
    out = tmp_path / "world"
    words = ["--seed", "7", "--out", str(out), "data.entities=100", "data.questions=30", "--json"]
    written = json.loads(run("data", "fictional", *words).stdout)
    assert written == {"dir": str(out), "passages": 100, "questions": 30}
    before = (out / "questions.jsonl").read_bytes()
    assert run("data", "fictional", *words).exit_code == 0
    assert (out / "questions.jsonl").read_bytes() == before
    assert len(before.splitlines()) == 30

    passage = json.loads((out / "corpus.jsonl").read_text("utf-8").splitlines()[0])
    found = json.loads(run("search", str(out / "corpus.jsonl"), passage["title"], "--k", "2", "--json").stdout)
    assert found["query"] == passage["title"]
    assert found["results"][0]["id"] == passage["id"]
    assert passage["title"] in run("search", str(out / "corpus.jsonl"), passage["title"]).stdout


def test_splits_of_one_seed_share_no_title(tmp_path):
    titles = {}
    for split in ("train", "eval"):
        out = tmp_path / split
        run("data", "fictional", "--seed", "1", "--split", split, "--out", str(out), "data.entities=100")
        titles[split] = {json.loads(line)["title"] for line in (out / "corpus.jsonl").read_text().splitlines()}
    assert titles["train"]
    assert titles["train"].isdisjoint(titles["eval"])


def test_a_runs_own_search_engine_is_searched(tmp_path):
    from forage.runfolder import RunFolder

    RunFolder.open(tmp_path, load(None, ["data.entities=100", "search=empty"])).close()
    assert json.loads(run("search", str(tmp_path), "anything", "--json").stdout)["results"] == []


def test_doctor_finds_this_machine_in_order():
    done = run("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == (0 if found["ok"] else 1)
    lines = {line["name"]: line for line in found["findings"]}
    assert {"python", "torch", "cpu", "memory", "disk", "device", "self-check", "packaged model"} <= set(lines)
    assert lines["self-check"]["ok"]
    assert "forage-rl[wandb]" in lines["extra wandb"]["todo"] or lines["extra wandb"]["found"] == "installed"


def exit_of(error: BaseException, *words: str) -> int:
    with pytest.raises(typer.Exit) as caught, reported(debug=False, words=words):
        raise error
    return int(caught.value.exit_code)


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("no"), 2, "error: no"),
        (DataError("q.jsonl:3: no"), 1, "error: q.jsonl:3: no"),
        (KeyboardInterrupt(), 130, "go on with: forage train smoke run.seed=1 --resume"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a/x"), 1, "no space left on the disk: runs/a/x"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "then: forage train smoke run.seed=1 --resume"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 1, "Permission denied: /root/x"),
        (OutOfMemoryError("CUDA"), 1, "Lower learner.micro_tokens"),
    ],
)
def test_every_error_ends_in_a_message_and_a_code(error, code, message, capsys):
    assert exit_of(error, "train", "smoke", "run.seed=1") == code
    out, err = capsys.readouterr()
    assert message in err
    assert not out


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(RuntimeError, match="bug"), reported(debug=False, words=[]):
        raise RuntimeError("bug")
    with pytest.raises(DataError), reported(debug=True, words=[]):
        raise DataError("no")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["train", "smoke"], "forage train smoke --resume"),
        (["train", "smoke", "--resume"], "forage train smoke --resume"),
        (["eval", "runs/a b"], "forage eval 'runs/a b'"),
        (["demo", "--seed", "1"], "forage train runs/demo --resume"),
        (["demo", "--out", "x"], "forage train x --resume"),
        ([], "forage"),
    ],
)
def test_the_command_that_goes_on(words, command):
    assert again(words) == command


def test_debug_may_stand_anywhere_and_settings_have_no_dashes():
    assert check_words(["train", "x", "--debug"]) == ["--debug", "train", "x"]
    assert check_words(["train", "x"]) == ["train", "x"]
    with pytest.raises(ConfigError, match=r"settings have no dashes: train\.steps=5"):
        check_words(["train", "--train.steps=5"])


def test_needs_are_told_from_the_name_or_from_the_files(tmp_path):
    assert "3B parameters" in needs(load(None, ["model.path=Qwen/Qwen2.5-3B"]))[1]
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps({**shape, "num_key_value_heads": 2, "vocab_size": 100}))
    lines = needs(load(None, [f"model.path={tmp_path}", "engine.slots=8"]))
    assert "8 episodes decoded at once" in lines[2]
    assert "not known here" in needs(load(None, ["model.path=mine"]))[1]


def test_an_evaluation_in_words():
    text = summary_text(
        {
            "em": 0.5,
            "em_ci": [0.4, 0.6],
            "f1": 0.55,
            "n": 1200,
            "by_hop": {"1": 0.6},
            "hit_rate": 0.7,
            "searches_mean": 1.5,
            "stop_reasons": {"answered": 1.0},
        }
    )
    assert "0.500  (95%: 0.400 to 0.600, n = 1,200)" in text
    assert "1 hop 0.600" in text


def test_the_module_is_a_command(tmp_path: Path):
    assert shell("--help").returncode == 0
