"""Nothing that stands at observed tokens reaches a loss or a gradient, through any advantage and any loss."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_policies import groups_of

from forage.batch import collate
from forage.registry import PARTS, find

SEES_OBSERVED = {"gae_all_tokens"}
"""Advantages that count observed tokens as steps, as the reference implementation does."""

ADVANTAGES = sorted(PARTS["algorithm.advantage"].keys() - SEES_OBSERVED)
COLUMNS = ("sampled_logprobs_BT", "old_logprobs_BT", "ref_logprobs_BT", "values_BT", "penalty_BT", "gains_BT")
BATCH = collate(groups_of(seed=5))


def noise(seed, size):
    """[B,T] numbers of about that size."""
    return torch.randn(BATCH.acted_BT.shape, generator=torch.Generator().manual_seed(seed)) * size


def acted_out():
    """A batch with every column that a loss or an advantage may read, and logprobs for it."""
    filled = {name: noise(i, 0.3) * BATCH.acted_BT for i, name in enumerate(COLUMNS[1:])}
    baselines_B = torch.full_like(BATCH.rewards_B, 0.25)
    batch = replace(BATCH, baselines_B=baselines_B, **filled)
    return batch.old_logprobs_BT + noise(9, 0.3) * BATCH.acted_BT, batch


def disturbed(columns_BT, seed, size):
    """The same with noise added where a token is observed."""
    return columns_BT + (noise(seed, size) * ~BATCH.acted_BT).to(columns_BT.dtype)


def losses(advantage, loss, logprobs_BT, batch, seed=0, size=0.0):
    """Losses and gradients [B,T], the advantages disturbed too."""
    logprobs_BT = logprobs_BT.clone().requires_grad_()
    batch = find("algorithm.advantage", advantage)()(batch, lambda total: total)
    batch = replace(batch, advantages_BT=disturbed(batch.advantages_BT, seed, size))
    loss_BT, metrics = find("algorithm.loss", loss)()(logprobs_BT, batch)
    loss_BT.sum().backward()
    return loss_BT.detach(), logprobs_BT.grad, metrics


@pytest.mark.parametrize("loss", PARTS["algorithm.loss"])
@pytest.mark.parametrize("advantage", ADVANTAGES)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**20), size=st.sampled_from([1e-2, 1.0, 1e2, 1e6]))
def test_observed_tokens_change_nothing(advantage, loss, seed, size):
    logprobs_BT, batch = acted_out()
    columns = {name: disturbed(getattr(batch, name), seed + i, size) for i, name in enumerate(COLUMNS)}
    loss_BT, grad_BT, metrics = losses(advantage, loss, logprobs_BT, batch)
    other = losses(advantage, loss, disturbed(logprobs_BT, seed, size), replace(batch, **columns), seed, size)
    assert torch.equal(loss_BT, other[0])
    assert torch.equal(grad_BT, other[1])
    assert metrics == other[2]
    assert (loss_BT[~BATCH.acted_BT] == 0).all()
    assert (grad_BT[~BATCH.acted_BT] == 0).all()


@pytest.mark.parametrize("advantage", sorted(SEES_OBSERVED))
def test_those_that_see_observed_tokens_do(advantage):
    logprobs_BT, batch = acted_out()
    loss_BT, _, _ = losses(advantage, "clip", logprobs_BT, batch)
    other = replace(batch, values_BT=disturbed(batch.values_BT, 1, 1.0))
    assert not torch.equal(loss_BT, losses(advantage, "clip", logprobs_BT, other)[0])
