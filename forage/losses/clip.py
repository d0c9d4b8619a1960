"""The clipped policy loss."""

from __future__ import annotations

from torch import Tensor

from forage.types import Batch, Metrics


class ClipLoss:
    """-min(ratio * A, clip(ratio, 1 - low, 1 + high) * A) a token (PPO, arXiv 1707.06347, equation 7).

    The ratio is of a token's probability now to the one it was sampled at, or to `old_logprobs_BT` where the learner
    recomputed it. No second bound on tokens with A < 0 (a "dual clip").

    Args:
        clip_low: a ratio below 1 - clip_low earns nothing more where A < 0.
        clip_high: a ratio above 1 + clip_high earns nothing more where A > 0. Larger than `clip_low` keeps entropy
            up ("clip higher", DAPO, arXiv 2503.14476).
    """

    needs: frozenset[str] = frozenset({"advantages_BT"})

    def __init__(self, *, clip_low: float = 0.2, clip_high: float = 0.2) -> None:
        self.clip_low = clip_low
        self.clip_high = clip_high

    def __call__(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss of each token [B,T], 0 where observed."""
        old_BT = batch.sampled_logprobs_BT if batch.old_logprobs_BT is None else batch.old_logprobs_BT
        assert batch.advantages_BT is not None
        log_ratio_BT = (logprobs_BT - old_BT).masked_fill(~batch.acted_BT, 0)
        ratio_BT = log_ratio_BT.clamp(
            max=20
        ).exp()  # a ratio of e^20 is clipped or hopeless; inf would be NaN in backward
        clipped_BT = ratio_BT.clamp(1 - self.clip_low, 1 + self.clip_high)
        plain_BT = -batch.advantages_BT * ratio_BT
        bound_BT = -batch.advantages_BT * clipped_BT
        loss_BT = plain_BT.maximum(bound_BT).masked_fill(~batch.acted_BT, 0)
        return loss_BT, _metrics(ratio_BT.detach(), (bound_BT > plain_BT) & batch.acted_BT, batch)


def _metrics(ratio_BT: Tensor, clipped_BT: Tensor, batch: Batch) -> Metrics:
    tokens = float(batch.acted_BT.sum())
    if not tokens:
        return {}
    return {
        "policy/clip_fraction": (float(clipped_BT.sum()), tokens),
        "policy/ratio": (float((ratio_BT * batch.acted_BT).sum()), tokens),
        "policy/ratio_max": (float((ratio_BT * batch.acted_BT).max()), 1.0),
    }
