"""Who is held fast: tokens that got less likely, in actions that got less likely, of episodes that are not bad."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from vectors import rows_of

from forage import build
from forage.configure import load
from forage.errors import ConfigError
from forage.losses.clip import ClipLoss
from forage.losses.gspo import GSPOLoss
from forage.losses.llds import LLDSLoss

ACTED = torch.tensor([[0, 1, 1, 0, 1, 1]] * 2).bool()
TURN = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
MOVED = torch.tensor([[9.0, -1.0, 0.5, -9.0, -0.5, 1.0]] * 2)  # the first turn fell by 0.5, the second rose by as much


def penalty(log_ratio_BT=MOVED, advantages=(1.0, 1.0), base="clip", **options):
    """What is added to the loss of the base, and its metrics."""
    zeros_BT = torch.zeros(ACTED.shape)
    advantages_BT = torch.tensor(advantages)[:, None].expand_as(zeros_BT)
    batch = replace(rows_of(ACTED, sampled_logprobs_BT=zeros_BT, advantages_BT=advantages_BT), turn_BT=TURN)
    loss_BT, metrics = LLDSLoss(coef=1.0, base=base, **options)(log_ratio_BT, batch)
    based_BT, _ = {"clip": ClipLoss, "gspo": GSPOLoss}[base]()(log_ratio_BT, batch)
    return loss_BT - based_BT, metrics


@pytest.mark.parametrize("base", ["clip", "gspo"])
def test_the_tokens_that_fell_in_an_action_that_fell(base):
    added_BT, metrics = penalty(base=base, advantages=(1.0, 0.0))
    torch.testing.assert_close(added_BT, torch.tensor([[0, 1.0, 0, 0, 0, 0]] * 2))
    assert metrics["loss/llds"] == (2.0, 8.0)
    assert metrics["policy/llds_episodes"] == (2.0, 2.0)


def test_bad_episodes_may_fall():
    added_BT, metrics = penalty(advantages=(1.0, -1.0))
    assert (added_BT[1] == 0).all()
    assert metrics["policy/llds_episodes"] == (1.0, 2.0)


def test_the_whole_response_as_the_gate():
    fell_BT = MOVED - torch.tensor([0, 0, 0, 0, 0, 0.1])
    added_BT, _ = penalty(fell_BT, gate="response")
    torch.testing.assert_close(added_BT, torch.tensor([[0, 1.0, 0, 0, 0.5, 0]] * 2))
    assert (penalty(MOVED, gate="response")[0] == 0).all()


def test_answers_can_be_left_free():
    added_BT, _ = penalty(-MOVED.abs(), answer_turn=False)
    torch.testing.assert_close(added_BT, torch.tensor([[0, 1.0, 0.5, 0, 0, 0]] * 2))


def test_what_has_not_moved_or_only_by_rounding_has_no_gradient():
    zeros_BT = torch.zeros(ACTED.shape)
    batch = rows_of(ACTED, sampled_logprobs_BT=zeros_BT, advantages_BT=zeros_BT)
    for off, loss, held in ((0.0, LLDSLoss(tolerance=0), False), (1e-6, LLDSLoss(), False), (1e-2, LLDSLoss(), True)):
        logprobs_BT = (zeros_BT - off).requires_grad_()
        loss(logprobs_BT, batch)[0].sum().backward()
        assert bool(logprobs_BT.grad.any()) is held


def test_the_clip_of_the_base_is_an_option():
    options = ["algorithm.loss=llds", "algorithm.loss.base=gspo", "algorithm.loss.clip_high=0.01"]
    loss = LLDSLoss(**load("smoke", options).algorithm.loss.options)
    assert (loss.base.clip_low, loss.base.clip_high) == (3e-4, 0.01)
    with pytest.raises(ConfigError, match="did you mean 'gspo'"):
        load("smoke", ["algorithm.loss=llds", "algorithm.loss.base=gpso"])


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ([], True),
        (["learner.minibatch_questions=99"], True),
        (["learner.minibatch_questions=1"], False),
        (["rollout.staleness=1"], False),
    ],
)
def test_it_is_refused_where_nothing_moves_within_a_batch(words, refused):
    config = load("smoke", ["algorithm.loss=llds", "rollout.questions=2", *words])
    policy = build.policy(config)
    with pytest.raises(ConfigError, match="acts on what moved within a batch") if refused else nullcontext():
        build.learner(config, policy, updates=1)
