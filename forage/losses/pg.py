"""The policy gradient with importance weights, and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from forage.losses.ratio import advantages, log_ratio, ratio, ratio_metrics
from forage.types import Batch, Metrics


class PolicyGradientLoss:
    """-ratio * A a token: `clip` without its clip (the surrogate of TRPO, arXiv 1502.05477, equation 14).

    Its gradient is that of the policy as it is now, from tokens of the older one that sampled them. Where both are the
    same (one optimizer step a batch) the gradient equals REINFORCE's, which is the loss `nll` with advantages; after
    that, `nll` goes on as if the tokens had been sampled just now. A ratio stays at e^20.
    """

    needs: frozenset[str] = frozenset({"advantages_BT"})

    def __call__(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss of each token [B,T], 0 where observed."""
        ratio_BT = ratio(log_ratio(logprobs_BT, batch))
        loss_BT = (-advantages(batch) * ratio_BT).masked_fill(~batch.acted_BT, 0)
        return loss_BT, ratio_metrics(ratio_BT, torch.zeros_like(batch.acted_BT), batch)
