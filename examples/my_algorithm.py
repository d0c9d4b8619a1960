"""An advantage and a loss of your own. Nothing in Forage changes for them."""

from __future__ import annotations

import torch
from torch import Tensor

from forage.batch import row_rewards, with_advantages
from forage.interfaces import Reduce
from forage.losses.ratio import advantages, log_ratio, ratio, ratio_metrics
from forage.types import Batch, Metrics


class Ranks:
    """A = the share of a question's other samples that earned less, minus the share that earned more.

    Between -1 and 1 whatever the size of the rewards, and 0 where all are equal.
    """

    needs: frozenset[str] = frozenset()
    group_relative = True
    min_samples = 2

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:  # noqa: ARG002 (for sums over processes)
        rewards_B = row_rewards(batch)
        together_BB = batch.group_B[:, None] == batch.group_B
        ahead_BB = (rewards_B[:, None] - rewards_B).sign() * together_BB
        others_B = (together_BB.sum(1) - 1).clamp(min=1)
        return with_advantages(batch, (ahead_BB.sum(1) / others_B)[:, None])


class SoftGate:
    """-4 / tau * sigmoid(tau * (ratio - 1)) * A: a clip without an edge (SAPO, arXiv 2511.20347).

    Args:
        tau: how fast a token falls silent as its ratio leaves 1.
        tau_negative: the same where A < 0.
    """

    needs: frozenset[str] = frozenset({"advantages_BT"})

    def __init__(self, *, tau: float = 1.0, tau_negative: float = 1.05) -> None:
        self.tau = tau
        self.tau_negative = tau_negative

    def __call__(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        ratio_BT = ratio(log_ratio(logprobs_BT, batch))
        tau_BT = torch.where(advantages(batch) > 0, self.tau, self.tau_negative)
        gate_BT = 4 / tau_BT * torch.sigmoid(tau_BT * (ratio_BT - 1))
        loss_BT = (-gate_BT * advantages(batch)).masked_fill(~batch.acted_BT, 0)
        return loss_BT, ratio_metrics(ratio_BT, (ratio_BT - 1).abs() > 1 / tau_BT, batch)
