"""Negative log-likelihood: supervised fine-tuning."""

from __future__ import annotations

from torch import Tensor

from forage.types import Batch, Metrics


class NegativeLogLikelihood:
    """-log p of each acted token, times its advantage where there is one.

    Without advantages it is plain supervised fine-tuning; with them, REINFORCE (and weighted fine-tuning).
    """

    needs: frozenset[str] = frozenset()

    def __call__(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        """Loss of each token [B,T], 0 where observed."""
        loss_BT = -logprobs_BT if batch.advantages_BT is None else -logprobs_BT * batch.advantages_BT
        return loss_BT.masked_fill(~batch.acted_BT, 0), {}
