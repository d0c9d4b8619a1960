"""Whole training runs of the packaged model: what they write, and that a killed one goes on as if nothing had been."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from forage.configure import load
from forage.errors import ConfigError, RunFolderError, TrainingError
from forage.records import read_records
from forage.training import train_from_config

TINY = [
    "data.entities=60",
    "rollout.questions=3",
    "rollout.samples=3",
    "train.steps=6",
    "train.save_every=2",
    "train.keep=9",
    "run.threads=1",
    "tracking.console=false",
]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def config(folder, *overrides):
    return load("smoke", [*TINY, f"run.dir={folder}", *overrides])


def rows(folder):
    """metrics.jsonl without what a clock or a cache decides."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(("time/", "cache/"))} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = train_from_config(config(folder))
    assert result["step"] == 6
    return folder


def start(folder, *overrides):
    command = [sys.executable, "-m", "forage", "train", "smoke", *TINY, f"run.dir={folder}", *overrides]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def wait_for_step(process, folder, step):
    """Wait until `step` stands in the metrics."""
    while process.poll() is None:
        path = folder / "metrics.jsonl"
        if path.exists() and f'"step": {step}' in path.read_text():
            return
        time.sleep(0.01)
    pytest.fail(f"the run ended before step {step}: {process.stderr.read()}")


def test_a_run_writes_what_it_did(whole):
    assert [row["step"] for row in rows(whole)] == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in (whole / "checkpoints").glob("step-*")) == [
        "step-000002",
        "step-000004",
        "step-000006",
    ]
    assert load(whole).rollout.questions == 3
    records = list(read_records(whole / "trajectories" / "step-000002.jsonl.zst"))
    assert len(records) == 9
    assert {"tokens", "acted", "logprobs", "advantage", "reward", "stop"} <= records[0].keys()
    assert json.loads((whole / "environment.json").read_text())


@pytest.mark.parametrize("step", [1, 3])
def test_killed_and_resumed_it_writes_the_same_metrics_to_the_bit(whole, tmp_path, step):
    folder = tmp_path / "run"
    with start(folder) as process:
        wait_for_step(process, folder, step)
        process.kill()
    resumed = subprocess.run(
        [sys.executable, "-m", "forage", "train", "smoke", *TINY, f"run.dir={folder}", "--resume"],
        env=ENVIRONMENT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert rows(folder) == rows(whole)
    last = "checkpoints/step-000006/model/model.safetensors"
    assert (folder / last).read_bytes() == (whole / last).read_bytes()
    for path in sorted((whole / "trajectories").iterdir()):
        assert list(read_records(folder / "trajectories" / path.name)) == list(read_records(path))


def test_a_queue_of_old_groups_survives_a_kill_to_the_bit(tmp_path):
    old = ("rollout.staleness=2", "train.save_every=1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_from_config(config(whole, *old))
    with start(killed, *old) as process:
        wait_for_step(process, killed, 3)
        process.kill()
    train_from_config(config(killed, *old), resume=True)
    assert rows(killed) == rows(whole)
    assert [row["groups/staleness"] for row in rows(whole)] == [0, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    "settings",
    [
        ["algorithm.equal_groups=refill", "rollout.staleness=1", "learner.minibatch_questions=2"],
        ["algorithm.advantage=remax"],
        ["algorithm.advantage=ig_search"],
        ["algorithm.advantage=tree_grpo", "rollout.trees=2", "rollout.samples=4", "rollout.staleness=1"],
        ['algorithm.leave_out=["no_answer"]', "algorithm.advantage=rloo", "learner.minibatch_questions=1"],
    ],
)
def test_groups_of_every_kind_go_on_as_if_nothing_had_been(tmp_path, settings):
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    train_from_config(config(whole, *settings, "train.steps=4"))
    train_from_config(config(halved, *settings, "train.steps=2"))
    train_from_config(config(halved, *settings, "train.steps=4"), resume=True)
    assert rows(halved) == rows(whole)


def test_steps_without_any_signal_go_by(tmp_path):
    folder = tmp_path / "run"
    refill = ["algorithm.equal_groups=refill", "algorithm.max_refills=1", "reward=odd_parts:nothing"]
    train_from_config(config(folder, *refill, "train.steps=2"))
    assert [row["groups/missing"] for row in rows(folder)] == [3, 3]
    assert [row["groups/played"] for row in rows(folder)] == [6, 6]
    assert [row["groups/failed"] for row in rows(folder)] == [1.0, 1.0]


def test_refilling_is_refused_where_groups_of_equal_rewards_teach(tmp_path):
    with pytest.raises(ConfigError, match="remax"):
        train_from_config(config(tmp_path / "run", "algorithm.equal_groups=refill", "algorithm.advantage=remax"))


def test_more_trees_than_samples_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"rollout\.trees = 4, but a group has only rollout\.samples = 3"):
        train_from_config(config(tmp_path / "run", "rollout.trees=4"))


@pytest.mark.parametrize(("minibatch", "saved"), [(0, ["step-000004"]), (1, [])])
def test_the_step_before_a_broken_loss_is_saved_if_weights_are_whole(tmp_path, minibatch, saved):
    folder = tmp_path / "run"
    broken = ["algorithm.loss=odd_parts:Bursting", "algorithm.equal_groups=keep", "train.save_every=0"]
    with pytest.raises(TrainingError) as failed:
        train_from_config(config(folder, *broken, f"learner.minibatch_questions={minibatch}"))
    assert sorted(path.name for path in (folder / "checkpoints").glob("step-*")) == saved
    assert ("is saved" if saved else "could not be saved") in failed.value.__notes__[0]


def test_ctrl_c_saves_the_step_and_exits_with_130(tmp_path):
    folder = tmp_path / "run"
    with start(folder, "train.steps=500", "train.save_every=0") as process:
        wait_for_step(process, folder, 1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "--resume" in said
    done = rows(folder)[-1]["step"]
    assert [path.name for path in (folder / "checkpoints").glob("step-*")] == [f"step-{done:06d}"]


def test_two_runs_do_not_share_a_folder(whole):
    with pytest.raises(RunFolderError, match="holds a run already"):
        train_from_config(config(whole))


def test_a_finished_run_resumed_does_nothing(whole):
    before = (whole / "metrics.jsonl").read_bytes()
    assert train_from_config(config(whole), resume=True)["step"] == 6
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_the_seed_decides(whole, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    train_from_config(config(again, "train.steps=2"))
    train_from_config(config(other, "train.steps=2", "run.seed=1"))
    assert rows(again) == rows(whole)[:2]
    assert rows(other) != rows(whole)[:2]
