"""What a learner tells about an update."""

from __future__ import annotations

from torch import Tensor

from forage.learners.packing import MicroBatch
from forage.types import Batch, Metrics


def describe(micro: MicroBatch, batch: Batch, logprobs_M: Tensor, entropy_M: Tensor, policy_BT: Tensor) -> Metrics:
    """What is charted of every micro-batch: logprobs and entropies [M] and the policy loss [B,T], all detached."""
    tokens = float(len(logprobs_M))
    log_ratio_M = logprobs_M - batch.sampled_logprobs_BT[batch.acted_BT]
    return {
        "loss/policy": (float(policy_BT.sum()), tokens),
        "policy/entropy": (float(entropy_M.sum()), tokens),
        "policy/kl_old": (float(_k3(log_ratio_M).sum()), tokens),
        "learner/tokens": (float(len(micro.tokens_N)), 0.0),  # counted once an update
        "learner/padding": (micro.where.padding, 1.0),
    }


def mismatch(batch: Batch, own_BT: Tensor, version: int = 0) -> Metrics:
    """How far the policy that sampled is from the learner's, before it learns from the batch.

    Args:
        batch: as sampled.
        own_BT: the learner's logprobs, detached.
        version: of the learner's weights.
    """
    sampled_BT = batch.acted_BT if batch.sampled_BT is None else batch.acted_BT & batch.sampled_BT
    tokens = float(sampled_BT.sum())
    gap_M = own_BT[sampled_BT] - batch.sampled_logprobs_BT[sampled_BT]
    age_M = version - batch.version_BT[sampled_BT]
    return {
        "policy/mismatch": (float(gap_M.abs().sum()), tokens),
        "policy/mismatch_kl": (float(_k3(gap_M).sum()), tokens),
        "policy/staleness": (float(age_M.sum()), tokens),
    }


def _k3(log_ratio_M: Tensor) -> Tensor:
    """exp(d) - d - 1 of each token."""
    return log_ratio_M.clamp(max=20).expm1() - log_ratio_M


def add(total: Metrics, more: Metrics) -> Metrics:
    """Add `more` to `total` in place; of names that end in `_max` the larger is kept."""
    for name, (value, count) in more.items():
        before, counted = total.get(name, (0.0, 0.0))
        if name.endswith("_max") and counted:
            total[name] = (max(before, value), 1.0)
        else:
            total[name] = (before + value, counted + count)
    return total
