"""A policy loss that clips weights, not gradients."""

from __future__ import annotations

from torch import Tensor

from forage.config import Amount
from forage.losses.ratio import advantages, log_ratio, ratio, ratio_metrics
from forage.types import Batch, Metrics


class CISPOLoss:
    """-sg(clip(ratio, 1 - low, 1 + high)) * A * log p a token (CISPO, MiniMax-M1, arXiv 2506.13585, equations 4, 5).

    sg stops the gradient: the clipped ratio is a weight. So no token falls silent, as the rare ones that begin
    another line of thought do under `clip`; they only weigh no more than the cap.

    Args:
        clip_low: a weight is at least 1 - clip_low. The default, 1, is no lower bound, as in the paper.
        clip_high: a weight is at most 1 + clip_high. (TRL's `epsilon_high` is the cap itself: its 5 is 4 here.)
    """

    needs: frozenset[str] = frozenset({"advantages_BT"})

    def __init__(self, *, clip_low: Amount = 1.0, clip_high: Amount = 4.0) -> None:
        self.clip_low = clip_low
        self.clip_high = clip_high

    def __call__(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss of each token [B,T], 0 where observed."""
        ratio_BT = ratio(log_ratio(logprobs_BT.detach(), batch))
        weight_BT = ratio_BT.clamp(1 - self.clip_low, 1 + self.clip_high)
        loss_BT = -weight_BT * advantages(batch) * logprobs_BT.masked_fill(~batch.acted_BT, 0)
        return loss_BT.masked_fill(~batch.acted_BT, 0), ratio_metrics(ratio_BT, weight_BT != ratio_BT, batch)
