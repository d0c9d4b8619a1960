"""What a critic is taught, and how well it does: pure functions of values and returns."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from forage.types import Batch, Metrics


def as_judged(batch: Batch) -> Batch:
    """The batch as its critic sees it: acted and counted is what it judges."""
    if batch.judged_BT is None:
        return batch
    tokens = int(batch.judged_BT.sum())
    return replace(batch, acted_BT=batch.judged_BT, tokens_G=None, rows_G=None, acted_tokens=tokens)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """max((v - R)^2, (clip(v, old - clip, old + clip) - R)^2) / 2 of each token, and where the clipped one is larger.

    A value that left the old one by more than `clip` on its way to the return is pushed no further. All of one shape.
    PPO's own code has it (arXiv 1707.06347 doesn't); verl and Search-R1 compute the same.
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    plain, bound = (values - returns).square(), (clipped - returns).square()
    return plain.maximum(bound) / 2, bound > plain


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns), of any shape: 1 is perfect, 0 no better than a constant.

    0 where all returns are equal: there is nothing to explain.
    """
    if not returns.numel():
        return 0.0
    spread = returns.double().var(correction=0)
    left = (returns.double() - values.double()).var(correction=0)
    return float(torch.where(spread > 0, 1 - left / spread, 0.0))


def describe_values(batch: Batch) -> Metrics:
    """How the critic judged a whole batch before it learned from it; nothing without values and returns."""
    if batch.values_BT is None or batch.returns_BT is None or not batch.acted_BT.any():
        return {}
    values_M, returns_M = batch.values_BT[batch.acted_BT], batch.returns_BT[batch.acted_BT]
    return {
        "value/mean": (float(values_M.sum()), float(len(values_M))),
        "value/explained_variance": (explained_variance(values_M, returns_M), 1.0),
    }
