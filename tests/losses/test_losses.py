from dataclasses import replace

import pytest
import torch
from tiny_policies import groups_of

from forage.batch import collate
from forage.losses.clip import ClipLoss
from forage.losses.nll import NegativeLogLikelihood


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


@pytest.mark.parametrize("loss", [ClipLoss(), NegativeLogLikelihood()])
def test_observed_tokens_have_no_loss_and_no_gradient_whatever_stands_there(loss):
    batch = batch_of()
    noise_BT = torch.full_like(batch.sampled_logprobs_BT, 1e4).masked_fill(batch.acted_BT, -1.0).requires_grad_()
    loss_BT, _ = loss(noise_BT, batch)
    (grad_BT,) = torch.autograd.grad(loss_BT.sum(), noise_BT)
    assert loss_BT.isfinite().all()
    assert (loss_BT[~batch.acted_BT] == 0).all()
    assert (grad_BT[~batch.acted_BT] == 0).all()


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
