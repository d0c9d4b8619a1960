"""What a learner tells about an update."""

from __future__ import annotations

from torch import Tensor

from forage.learners.packing import MicroBatch
from forage.types import Metrics


def describe(micro: MicroBatch, logprobs_M: Tensor, entropy_M: Tensor, policy_BT: Tensor) -> Metrics:
    """What is charted of every micro-batch: logprobs and entropies [M] and the policy loss [B,T], all detached."""
    batch, tokens = micro.batch, float(len(logprobs_M))
    log_ratio_M = logprobs_M - batch.sampled_logprobs_BT[batch.acted_BT]
    moved_M = log_ratio_M.clamp(max=20).expm1() - log_ratio_M
    return {
        "loss/policy": (float(policy_BT.sum()), tokens),
        "policy/entropy": (float(entropy_M.sum()), tokens),
        "policy/kl_old": (float(moved_M.sum()), tokens),
        "learner/tokens": (float(len(micro.tokens_N)), 0.0),  # counted once an update
        "learner/padding": (micro.where.padding, 1.0),
    }


def add(total: Metrics, more: Metrics) -> Metrics:
    """Add `more` to `total` in place; of names that end in `_max` the larger is kept."""
    for name, (value, count) in more.items():
        before, counted = total.get(name, (0.0, 0.0))
        if name.endswith("_max") and counted:
            total[name] = (max(before, value), 1.0)
        else:
            total[name] = (before + value, counted + count)
    return total
