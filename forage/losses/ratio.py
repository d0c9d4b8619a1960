"""What policy losses share: the ratio of a token's probability now to the one it had, its clip, and its metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from forage.types import Batch, Metrics

MAX_LOG_RATIO = 20.0  # a ratio of e^20 is clipped or hopeless; inf would be NaN in backward


def log_ratio(logprobs_BT: Tensor, batch: Batch) -> Tensor:
    """Log of each token's ratio [B,T], exactly 0 (with no gradient) where observed.

    The denominator is the probability the token was sampled at, or `old_logprobs_BT` where the learner recomputed it.
    """
    old_BT = batch.sampled_logprobs_BT if batch.old_logprobs_BT is None else batch.old_logprobs_BT
    return (logprobs_BT - old_BT).masked_fill(~batch.acted_BT, 0)


def ratio(log_ratio_BT: Tensor) -> Tensor:
    """exp, finite in value and gradient: from e^20 on the ratio stays, and its gradient is 0."""
    return log_ratio_BT.clamp(max=MAX_LOG_RATIO).exp()


def advantages(batch: Batch) -> Tensor:
    """The batch's advantages [B,T]; every policy loss names them in `needs`."""
    assert batch.advantages_BT is not None
    return batch.advantages_BT


def clip(ratio_BT: Tensor, batch: Batch, low: float, high: float) -> tuple[Tensor, Tensor]:
    """max(-A ratio, -A clip(ratio, 1 - low, 1 + high)) [B,T], and where the clip stops the gradient, bool [B,T]."""
    plain_BT = -advantages(batch) * ratio_BT
    bound_BT = -advantages(batch) * ratio_BT.clamp(1 - low, 1 + high)
    return plain_BT.maximum(bound_BT), bound_BT > plain_BT


def ratio_metrics(ratio_BT: Tensor, clipped_BT: Tensor, batch: Batch) -> Metrics:
    """Mean and largest ratio of the acted tokens, and the share of them that was clipped."""
    ratio_M = ratio_BT.detach()[batch.acted_BT]
    tokens = float(len(ratio_M))
    if not tokens:
        return {}
    clipped, total, largest = torch.stack([(clipped_BT & batch.acted_BT).sum(), ratio_M.sum(), ratio_M.max()]).tolist()
    return {
        "policy/clip_fraction": (clipped, tokens),
        "policy/ratio": (total, tokens),
        "policy/ratio_max": (largest, 1.0),
    }
