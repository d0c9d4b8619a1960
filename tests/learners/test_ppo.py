"""Whole runs with a critic: they learn, go on to the bit, and leave a model that nothing of the critic is in."""

import json

import pytest
import torch

from forage import build
from forage.configure import load
from forage.errors import ConfigError
from forage.export import export_model
from forage.training import train_from_config

TINY = [
    *("data.entities=60", "rollout.questions=2", "rollout.samples=2", "train.steps=3", "train.save_every=1"),
    *("train.keep=9", "run.threads=1", "tracking.console=false", "algorithm.advantage=gae", "train.eval_every=0"),
]


def config(folder, *overrides):
    return load("smoke", [*TINY, f"run.dir={folder}", *overrides])


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(("time/", "cache/"))} for line in lines]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ppo") / "own"
    train_from_config(config(folder, "critic=own", "critic.warmup_steps=1"))
    return folder


def test_ppo_with_a_critic_of_its_own_learns(own):
    first, second, third = rows(own)
    assert "policy/grad_norm" not in first  # the critic warmed up
    assert second["policy/grad_norm"] > 0
    assert first["value/mean"] == 0.0
    assert third["value/mean"] != 0.0
    assert third["value/lr"] == 5e-4
    assert third["value/explained_variance"] <= 1


@pytest.mark.parametrize("dropped", ["critic.keep_tokens=0", "learner.micro_tokens=200"])
def test_how_values_are_computed_changes_no_more_than_rounding(own, tmp_path, dropped):
    train_from_config(config(tmp_path / "run", "critic=own", "critic.warmup_steps=1", dropped, "train.steps=1"))
    ours, theirs = rows(tmp_path / "run")[0], rows(own)[0]
    assert ours["value/loss"] == pytest.approx(theirs["value/loss"], rel=1e-5)
    assert ours["value/grad_norm"] == pytest.approx(theirs["value/grad_norm"], rel=1e-4)


def test_it_goes_on_to_the_last_bit(own, tmp_path):
    folder = tmp_path / "run"
    train_from_config(config(folder, "critic=own", "critic.warmup_steps=1", "train.steps=1"))
    train_from_config(config(folder, "critic=own", "critic.warmup_steps=1"), resume=True)
    assert rows(folder) == rows(own)
    for name in ("model/model.safetensors", "critic/model.safetensors"):
        last = f"checkpoints/step-000003/{name}"
        assert (folder / last).read_bytes() == (own / last).read_bytes()


def test_what_is_exported_has_no_critic(own, tmp_path):
    export_model(own, tmp_path / "model")
    assert not (tmp_path / "model" / "critic").exists()
    assert build.policy(load("smoke", [f"model.path={tmp_path / 'model'}"]))


def test_another_run_begins_with_its_critic(own, tmp_path):
    begun = config(tmp_path / "run", "critic=own", f"model.init_from={own}")
    critic = build.critic(begun, build.policy(begun))
    assert critic.module["head"].weight.any()
    again = build.critic(config(tmp_path / "run", "critic=own"), build.policy(begun))
    assert not torch.equal(critic.module["head"].weight, again.module["head"].weight)


def test_a_shared_head_trains_too_and_minibatches_with_a_correction(tmp_path):
    options = ("critic=shared", "learner.minibatch_questions=1", "learner.correction=token", "train.steps=2")
    train_from_config(config(tmp_path / "run", *options))
    assert rows(tmp_path / "run")[-1]["correction/weight"] == pytest.approx(1, abs=1e-3)


def test_gae_without_a_critic_is_refused_before_the_run(tmp_path):
    with pytest.raises(ConfigError, match="set critic=own"):
        train_from_config(config(tmp_path / "run"))


def test_the_reference_s_fault_trains_with_a_critic_of_its_own_only(tmp_path):
    folder = tmp_path / "run"
    fault = ("algorithm.advantage=gae_all_tokens", "train.steps=1")
    train_from_config(config(folder, "critic=own", *fault))
    assert rows(folder)[0]["value/loss"] > 0
    with pytest.raises(ConfigError, match="set critic=own"):
        train_from_config(config(tmp_path / "other", "critic=shared", *fault))
