from dataclasses import replace

import pytest
import torch
from tiny_policies import groups_of

from forage.batch import collate
from forage.configure import load
from forage.errors import ConfigError
from forage.losses.cispo import CISPOLoss
from forage.losses.clip import ClipLoss
from forage.losses.dual_clip import DualClipLoss
from forage.losses.gspo import GSPOLoss
from forage.losses.nll import NegativeLogLikelihood
from forage.losses.pg import PolicyGradientLoss
from forage.registry import PARTS, find


def batch_of(advantage=1.0):
    batch = collate(groups_of(seed=3))
    return replace(batch, advantages_BT=batch.acted_BT * advantage)


@pytest.mark.parametrize(
    ("advantage", "log_ratio", "moves"), [(1, 0.5, False), (1, -0.5, True), (-1, 0.5, True), (-1, -0.5, False)]
)
def test_the_clip_stops_what_has_gone_far_enough_in_the_wanted_direction(advantage, log_ratio, moves):
    batch = batch_of(advantage)
    logprobs_BT = (batch.sampled_logprobs_BT + log_ratio).requires_grad_()
    loss_BT, metrics = ClipLoss()(logprobs_BT, batch)
    (grad_BT,) = torch.autograd.grad(loss_BT.sum(), logprobs_BT)
    assert bool(grad_BT[batch.acted_BT].any()) is moves
    clipped, tokens = metrics["policy/clip_fraction"]
    assert clipped == (0 if moves else tokens)
    assert tokens == batch.acted_tokens


@pytest.mark.parametrize("name", PARTS["algorithm.loss"])
def test_observed_tokens_have_no_loss_and_no_gradient_whatever_stands_there(name):
    loss, batch = find("algorithm.loss", name)(), batch_of()
    noise_BT = torch.full_like(batch.sampled_logprobs_BT, 1e4).masked_fill(batch.acted_BT, -1.0).requires_grad_()
    loss_BT, _ = loss(noise_BT, batch)
    (grad_BT,) = torch.autograd.grad(loss_BT.sum(), noise_BT)
    assert loss_BT.isfinite().all()
    assert (loss_BT[~batch.acted_BT] == 0).all()
    assert (grad_BT[~batch.acted_BT] == 0).all()


def gradient(loss, batch, log_ratio):
    """Of each acted token, all of whose log-ratios are the same."""
    logprobs_BT = (batch.sampled_logprobs_BT + log_ratio).requires_grad_()
    loss_BT, metrics = loss(logprobs_BT, batch)
    (grad_BT,) = torch.autograd.grad(loss_BT.sum(), logprobs_BT)
    return grad_BT[batch.acted_BT], metrics


def test_a_dual_clip_silences_what_became_far_likelier_though_it_is_bad():
    for bound, moves in ((3.0, False), (10.0, True)):
        grad_M, metrics = gradient(DualClipLoss(bound=bound), batch_of(-1.0), 1.5)
        assert bool(grad_M.any()) is moves
        assert metrics["policy/clip_fraction"][0] == (0 if moves else len(grad_M))
    with pytest.raises(ConfigError, match="a number > 1"):
        load("smoke", ["algorithm.loss=dual_clip", "algorithm.loss.bound=1.0"])


def test_gspo_clips_a_row_as_a_whole_and_keeps_one_that_has_not_moved_in_sum():
    batch = batch_of()
    up_BT = batch.acted_BT.cumsum(1) * batch.acted_BT / 10.0
    centred_BT = (up_BT - up_BT.sum(1, keepdim=True) / batch.acted_BT.sum(1, keepdim=True)) * batch.acted_BT
    grad_M, metrics = gradient(GSPOLoss(clip_low=0.01, clip_high=0.01), batch, centred_BT)
    torch.testing.assert_close(grad_M, -torch.ones_like(grad_M))
    assert metrics["policy/ratio_max"][0] == pytest.approx(1)
    assert not gradient(GSPOLoss(), batch, centred_BT + 0.01)[0].any()


def test_cispo_silences_no_token_and_caps_its_weight():
    grad_M, metrics = gradient(CISPOLoss(clip_high=1.0), batch_of(), 5.0)
    assert (grad_M == -2).all()
    assert metrics["policy/clip_fraction"] == (len(grad_M), len(grad_M))


def test_the_plain_policy_gradient_is_reinforce_where_nothing_has_moved():
    batch = batch_of(0.7)
    assert torch.equal(gradient(PolicyGradientLoss(), batch, 0.0)[0], gradient(NegativeLogLikelihood(), batch, 0.0)[0])
    torch.testing.assert_close(
        gradient(PolicyGradientLoss(), batch, 1.0)[0], gradient(NegativeLogLikelihood(), batch, 1.0)[0] * torch.e
    )


def test_recomputed_logprobs_take_the_place_of_the_sampled_ones():
    batch = batch_of()
    logprobs_BT = torch.full_like(batch.sampled_logprobs_BT, -1.0)
    _, metrics = ClipLoss()(logprobs_BT, replace(batch, old_logprobs_BT=logprobs_BT))
    assert metrics["policy/ratio_max"] == (1.0, 1.0)


def test_likelihood_is_weighed_by_advantages_where_there_are_some():
    batch = collate(groups_of(seed=3))
    logprobs_BT = torch.full_like(batch.sampled_logprobs_BT, -1.0)
    plain_BT, _ = NegativeLogLikelihood()(logprobs_BT, batch)
    halved_BT, _ = NegativeLogLikelihood()(logprobs_BT, replace(batch, advantages_BT=batch.acted_BT * 0.5))
    assert plain_BT.sum() == batch.acted_tokens == 2 * halved_BT.sum()
