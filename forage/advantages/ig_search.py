"""Group-relative advantages, and what each search was worth."""

from __future__ import annotations

import torch
from torch import Tensor

from forage.advantages import turns
from forage.advantages.compare import normalised
from forage.batch import row_rewards, with_advantages
from forage.config import Amount, Positive
from forage.interfaces import Reduce
from forage.types import Batch


class IGSearch:
    """A = that of `grpo`; on the tokens of a search, + weight * its gain among the question's searches of that turn.

    The gain of a search is how much likelier its passages made the gold answer than passages found for other questions
    would have (IG-Search, arXiv 2604.15148; `forage.gain`). It is compared as rewards are, less the mean and divided by
    the standard deviation, over the samples that searched in the turn of the same number; so a first search is not held
    against a last one, and a search that is alone in its turn gets 0. Searches teach where all answers are wrong, too.

    The gain is the paper's. How it is compared, its weight and `noise` are ours.

    Args:
        weight: of the gain; at 0 nothing is measured, and this is `grpo`.
        others: results of other questions that a search's passages are measured against.
        noise: added to the gains' standard deviation, in nats a token; differences far below it count for little.
        epsilon: added to every standard deviation.
    """

    needs: frozenset[str] = frozenset({"gains_BT"})
    group_relative = False
    min_samples = 2

    def __init__(
        self, *, weight: Amount = 0.5, others: Positive = 3, noise: Amount = 0.05, epsilon: float = 1e-6
    ) -> None:
        self.weight = weight
        self.others = others
        self.noise = noise
        self.epsilon = epsilon
        if not weight:
            self.needs, self.group_relative = frozenset(), True

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:  # noqa: ARG002 (groups are whole in one process)
        """Fill in `advantages_BT`. In a step without a measured search they are those of `grpo`."""
        advantages_BT = normalised(row_rewards(batch), batch.group_B, self.epsilon)[:, None]
        if self.weight and batch.gains_BT is not None:
            advantages_BT = advantages_BT + self.weight * self._gained(batch, batch.gains_BT)
        return with_advantages(batch, advantages_BT)

    def _gained(self, batch: Batch, gains_BT: Tensor) -> Tensor:
        """The compared gain on the tokens of each measured search, 0 elsewhere [B,T]."""
        known_BT = batch.acted_BT & ~gains_BT.isnan()
        gain_BK, measured_BK = turns.means(batch, gains_BT, known_BT)
        places = gain_BK.shape[1]
        group_BK = batch.group_B[:, None] * places + torch.arange(places, device=batch.group_B.device)
        compared_N = normalised(gain_BK[measured_BK], group_BK[measured_BK], self.noise + self.epsilon)
        compared_BK = torch.zeros_like(gain_BK).masked_scatter(measured_BK, compared_N)
        return turns.on_tokens(batch, compared_BK).where(known_BT, 0.0)
