"""The clipped policy loss."""

from __future__ import annotations

from torch import Tensor

from forage.config import Amount
from forage.losses.ratio import clip, log_ratio, ratio, ratio_metrics
from forage.types import Batch, Metrics


class ClipLoss:
    """-min(ratio * A, clip(ratio, 1 - low, 1 + high) * A) a token (PPO, arXiv 1707.06347, equation 7).

    The ratio is of a token's probability now to the one it was sampled at, or to `old_logprobs_BT` where the learner
    recomputed it. No second bound on tokens with A < 0: that is `dual_clip`.

    Args:
        clip_low: a ratio below 1 - clip_low earns nothing more where A < 0.
        clip_high: a ratio above 1 + clip_high earns nothing more where A > 0. Larger than `clip_low` keeps entropy
            up ("clip higher", DAPO, arXiv 2503.14476).
    """

    needs: frozenset[str] = frozenset({"advantages_BT"})

    def __init__(self, *, clip_low: Amount = 0.2, clip_high: Amount = 0.2) -> None:
        self.clip_low = clip_low
        self.clip_high = clip_high

    def __call__(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss of each token [B,T], 0 where observed."""
        ratio_BT = ratio(log_ratio(logprobs_BT, batch))
        loss_BT, clipped_BT = clip(ratio_BT, batch, self.clip_low, self.clip_high)
        return loss_BT.masked_fill(~batch.acted_BT, 0), ratio_metrics(ratio_BT, clipped_BT, batch)
