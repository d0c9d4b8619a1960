"""What stands beside a policy loss: the ratio's denominator, the correction for how tokens were sampled, a KL."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from forage.correction import Correction
from forage.kl import KLEstimator
from forage.types import Batch, Metrics


def settle(batch: Batch, own_BT: Tensor, *, recompute: bool) -> Batch:
    """The batch with the denominator of the ratio, as far as it has none.

    Args:
        batch: as sampled.
        own_BT: the learner's logprobs before it learned from the batch.
        recompute: they are the denominator; otherwise it is what the tokens were sampled at. Tokens that are learned
            but were never sampled take the learner's own either way, as both.
    """
    if batch.sampled_BT is not None:
        batch = replace(batch, sampled_logprobs_BT=torch.where(batch.sampled_BT, batch.sampled_logprobs_BT, own_BT))
    if recompute and batch.old_logprobs_BT is None:
        batch = replace(batch, old_logprobs_BT=own_BT)
    return batch


def denominator(batch: Batch) -> Tensor:
    """What a token's probability is compared to [B,T]: the learner's logprobs where it has computed them."""
    return batch.sampled_logprobs_BT if batch.old_logprobs_BT is None else batch.old_logprobs_BT


def correct(policy_BT: Tensor, batch: Batch, correction: Correction) -> tuple[Tensor, Metrics]:
    """The policy loss times the weights of a correction, [B,T]."""
    weights_BT, cut_BT = correction(denominator(batch), batch.sampled_logprobs_BT, batch.acted_BT)
    tokens = float(batch.acted_BT.sum())
    return policy_BT * weights_BT, {
        "correction/weight": (float(weights_BT.sum()), tokens),
        "correction/capped": (float(cut_BT.sum()), tokens),
    }


def penalties(batch: Batch, estimator: KLEstimator) -> Tensor:
    """The KL to the reference of the policy that sampled, token by token [B,T], 0 where observed."""
    assert batch.ref_logprobs_BT is not None
    return estimator(denominator(batch), batch.ref_logprobs_BT).masked_fill(~batch.acted_BT, 0)
