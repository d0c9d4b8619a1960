"""The clipped policy loss with a second bound."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from torch import Tensor

from forage.config import Amount
from forage.losses.ratio import advantages, clip, log_ratio, ratio, ratio_metrics
from forage.types import Batch, Metrics


class DualClipLoss:
    """The loss of `clip`, but at most bound * |A| where A < 0 (arXiv 1912.09729, equation 5).

    PPO's clip lets the loss of a token with A < 0 grow with its ratio without limit. Here such a token has no gradient
    once its ratio has passed the bound, so that a few of them can't rule an update. verl's default loss.

    Args:
        clip_low: a ratio below 1 - clip_low earns nothing more where A < 0.
        clip_high: a ratio above 1 + clip_high earns nothing more where A > 0.
        bound: the largest ratio that counts where A < 0; above 1, where every ratio begins.
    """

    needs: frozenset[str] = frozenset({"advantages_BT"})

    def __init__(
        self, *, clip_low: Amount = 0.2, clip_high: Amount = 0.2, bound: Annotated[float, Meta(gt=1)] = 3.0
    ) -> None:
        self.clip_low = clip_low
        self.clip_high = clip_high
        self.bound = bound

    def __call__(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss of each token [B,T], 0 where observed."""
        ratio_BT = ratio(log_ratio(logprobs_BT, batch))
        loss_BT, clipped_BT = clip(ratio_BT, batch, self.clip_low, self.clip_high)
        most_BT = -self.bound * advantages(batch)
        held_BT = (most_BT > 0) & (loss_BT > most_BT)
        loss_BT = most_BT.where(held_BT, loss_BT).masked_fill(~batch.acted_BT, 0)
        return loss_BT, ratio_metrics(ratio_BT, clipped_BT | held_BT, batch)
