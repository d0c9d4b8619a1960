"""Learning right samples only is fine-tuning on them: the same loss, the same gradient, no forward for the others."""

import asyncio
import json

import pytest
import torch
from tiny_policies import groups_of, tiny_policy

from forage.advantages.rejection import Rejection
from forage.batch import chosen, collate, minibatches
from forage.configure import load
from forage.learners.local import LocalLearner
from forage.losses.nll import NegativeLogLikelihood
from forage.training import train_from_config
from forage.types import Group, Scores

REWARDS = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]


def learned(rewards):
    groups = groups_of(rewards=rewards)
    return groups, chosen(Rejection()(collate(groups), lambda total: total))


def kept(groups):
    """The right episodes, each a group of its own, as supervised fine-tuning is given them."""
    return [
        Group([trajectory], [Scores(1.0)])
        for group in groups
        for trajectory, score in zip(group.trajectories, group.scores, strict=True)
        if score.total > 0
    ]


def after(batch, **options):
    """Weights and metrics after one update of a policy that is the same each time."""
    policy = tiny_policy()
    learner = LocalLearner(policy, NegativeLogLikelihood(), lr=1e-2, weight_decay=0.0, **options)
    metrics = asyncio.run(learner.update(batch))
    return dict(policy.model.named_parameters()), metrics


def test_only_what_is_right_is_left_and_counted():
    groups, batch = learned(REWARDS)
    assert len(batch.tokens_BT) == 3
    assert batch.group_B.tolist() == [0, 1, 1]
    assert batch.acted_tokens == sum(sum(group.trajectories[0].acted) for group in kept(groups))
    assert [len(part.tokens_BT) for part in minibatches(batch, 1)] == [1, 2]


def test_the_update_is_that_of_fine_tuning_on_what_is_right():
    groups, batch = learned(REWARDS)
    ours, metrics = after(batch)
    theirs, expected = after(collate(kept(groups)))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-4, atol=1e-6)
    assert metrics["loss/policy"] == pytest.approx(expected["loss/policy"], rel=1e-5)


def test_where_nothing_is_right_nothing_is_learned():
    _, batch = learned([[0.0] * 3] * 3)
    assert (len(batch.tokens_BT), batch.acted_tokens) == (0, 0)
    untouched = dict(tiny_policy().model.named_parameters())
    weights, _ = after(batch, minibatch_questions=1)
    assert all(torch.equal(weight, untouched[name]) for name, weight in weights.items())


def test_a_run_of_the_recipe(tmp_path):
    words = ["data.entities=60", "rollout.questions=4", "train.steps=2", "train.eval_every=0", "run.threads=1"]
    shown = ["tracking.console=false", f"run.dir={json.dumps(str(tmp_path / 'run'))}", "reward=f1"]
    graded = ["algorithm.advantage.threshold=0.0"]  # everything is right, so that there is something to learn
    assert train_from_config(load("rejection-sampling", [*words, *shown, *graded]))["step"] == 2
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss/policy"] > 0 for row in rows)
