"""Plain policy gradient."""

from __future__ import annotations

from typing import Literal

import torch

from forage.advantages.timesteps import returns
from forage.batch import row_rewards, token_rewards, with_advantages
from forage.config import Share
from forage.interfaces import Reduce
from forage.types import Batch


class Reinforce:
    """A(t) = r(t) + gamma r(t+1) + ..., what is earned from a token on (REINFORCE, Williams 1992).

    Only acted tokens are time steps: an observed one has no reward and no discount.

    Args:
        gamma: what a reward one acted token later is worth.
        baseline: "none", or "batch_mean": less the mean reward of all episodes of the step.
    """

    needs: frozenset[str] = frozenset()
    group_relative = False

    def __init__(self, *, gamma: Share = 1.0, baseline: Literal["none", "batch_mean"] = "none") -> None:
        self.gamma = gamma
        self.baseline = baseline

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:
        """Fill in `advantages_BT`: the return of each acted token, less the baseline."""
        returns_BT = returns(token_rewards(batch), batch.acted_BT, self.gamma)
        if self.baseline == "batch_mean":
            rewards_B = row_rewards(batch).double()
            total, rows = reduce(torch.stack([rewards_B.sum(), rewards_B.new_tensor(float(len(rewards_B)))]))
            returns_BT = returns_BT - total / rows.clamp(min=1)
        return with_advantages(batch, returns_BT)
