"""Supervised runs: from scripts and from files, killed or not."""

import asyncio
import json

import pytest

from forage import build
from forage.configure import load
from forage.errors import ConfigError, DataError
from forage.records import read_records, write_records
from forage.sft import Scripted, fresh_policy, run_sft
from forage.training import train_from_config

SMALL = [
    "sft.steps=4",
    "sft.episodes=4",
    "sft.fresh.hidden=32",
    "sft.fresh.heads=2",
    "sft.fresh.layers=1",
    "learner.warmup_steps=1",
    "learner.muon_lr=0.01",
    "model.dtype=float32",
    "train.save_every=2",
    "run.threads=1",
    "tracking.console=false",
]


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(("time/", "cache/"))} for line in lines]


def test_a_warm_start_learns_and_goes_on_as_if_never_interrupted(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_sft(load("warm-start", [*SMALL, f"run.dir={whole}"]))
    assert rows(whole)[-1]["loss/policy"] < rows(whole)[0]["loss/policy"]
    config = load("warm-start", [*SMALL, f"run.dir={cut}"])
    run_sft(config)
    last = cut / "checkpoints" / "step-000004" / "model" / "model.safetensors"
    before = last.read_bytes()
    last.write_bytes(b"")
    run_sft(config, resume=True)
    assert rows(cut) == rows(whole)
    assert last.read_bytes() == before


def test_scripted_episodes_may_differ_in_passages_a_search():
    config = load("warm-start", [*SMALL, "sft.passages=[1,3]", "sft.episodes=12", "rollout.max_observation_tokens=200"])
    tokenizer = fresh_policy(config).tokenizer
    episodes = asyncio.run(Scripted(config, tokenizer, build.renderer(config, tokenizer)).take(4))
    found = [{len(passages) for turn in e.turns for passages in turn.results} for e in episodes if e.searches]
    assert {len(numbers) for numbers in found} == {1}
    assert set.union(*found) == {1, 3}


def test_the_next_run_starts_from_what_was_learned(tmp_path):
    first = tmp_path / "first"
    run_sft(load("warm-start", [*SMALL, f"run.dir={first}"]))
    settings = [f"model.path={first}", f"run.dir={tmp_path / 'rl'}", "data.entities=60", "rollout.questions=2"]
    settings += ["rollout.samples=2", "train.steps=1", "run.threads=1", "tracking.console=false"]
    settings += ["train.save_trajectories_every=1"]
    train_from_config(load("smoke", settings))
    recorded = tmp_path / "rl" / "trajectories" / "step-000001.jsonl.zst"
    assert len(list(read_records(recorded))) == 4

    again = [*SMALL, "sft.fresh.tokenizer=", f"model.path={first}", f"sft.data={recorded}", "sft.episodes=4"]
    run_sft(load("warm-start", [*again, "sft.steps=6", "learner.lr=1e-2", f"run.dir={tmp_path / 'again'}"]))
    losses = [row["loss/policy"] for row in rows(tmp_path / "again")]
    assert losses[-1] < losses[0]


def test_nothing_to_learn_from_is_said(tmp_path):
    with pytest.raises(ConfigError, match="phases"):
        run_sft(load("warm-start", [*SMALL, "sft.phases=[]", f"run.dir={tmp_path / 'a'}"]))
    empty = tmp_path / "empty.jsonl.zst"
    write_records(empty, [])
    with pytest.raises(DataError, match="no trajectories"):
        run_sft(load("warm-start", [*SMALL, f"sft.data={empty}", f"run.dir={tmp_path / 'b'}"]))
