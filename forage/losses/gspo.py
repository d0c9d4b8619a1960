"""The clipped policy loss with one ratio a row."""

from __future__ import annotations

from torch import Tensor

from forage.config import Amount
from forage.losses.ratio import clip, log_ratio, ratio, ratio_metrics
from forage.types import Batch, Metrics


class GSPOLoss:
    """The loss of `clip` with s = exp(mean of the log-ratios of a row's acted tokens) as every token's ratio.

    So a row is clipped as a whole. Each token carries the gradient of its own log-probability, times s: its ratio is
    s * p / sg(p), where sg stops the gradient (GSPO-token, arXiv 2507.18071, section 4.3). With one advantage a row and
    `learner.aggregation = "sequence_mean"` that is the paper's sequence objective (equation 5).

    Args:
        clip_low: a ratio below 1 - clip_low earns nothing more where A < 0. The mean of log-ratios is far closer to 0
            than they are: the default is the paper's.
        clip_high: a ratio above 1 + clip_high earns nothing more where A > 0.
    """

    needs: frozenset[str] = frozenset({"advantages_BT"})

    def __init__(self, *, clip_low: Amount = 3e-4, clip_high: Amount = 4e-4) -> None:
        self.clip_low = clip_low
        self.clip_high = clip_high

    def __call__(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss of each token [B,T], 0 where observed."""
        ratio_BT = ratio(_row_log_ratio(log_ratio(logprobs_BT, batch), batch.acted_BT))
        loss_BT, clipped_BT = clip(ratio_BT, batch, self.clip_low, self.clip_high)
        return loss_BT.masked_fill(~batch.acted_BT, 0), ratio_metrics(ratio_BT, clipped_BT, batch)


def _row_log_ratio(log_ratio_BT: Tensor, acted_BT: Tensor) -> Tensor:
    """The mean over a row's acted tokens, on each of its tokens [B,T], with the gradient of that token alone."""
    fixed_BT = log_ratio_BT.detach()
    mean_B1 = fixed_BT.sum(1, keepdim=True) / acted_BT.sum(1, keepdim=True).clamp(min=1)
    return mean_B1 + (log_ratio_BT - fixed_BT)
