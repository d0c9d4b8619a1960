"""Generalised advantages of a critic."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from forage.advantages.timesteps import generalised, whiten
from forage.batch import token_rewards, with_advantages
from forage.config import Share
from forage.interfaces import Reduce
from forage.types import Batch


class GAE:
    """A(t) = sum of (gamma lam)^k d(t+k), d(t) = r(t) + gamma v(t+1) - v(t) (GAE, arXiv 1506.02438, equation 16).

    t + 1 is the next acted token: an observed one is no step, and has no value, no reward and no discount. The value
    behind the last is 0. The critic learns A + v, as it was before whitening.

    Args:
        gamma: what a reward one acted token later is worth.
        lam: 1 trusts rewards only, 0 the critic's next value only.
        whiten: bring advantages to mean 0 and variance 1 over the acted tokens of the batch, as PPO does.
    """

    needs: frozenset[str] = frozenset({"values_BT"})
    group_relative = False

    def __init__(self, *, gamma: Share = 1.0, lam: Share = 1.0, whiten: bool = True) -> None:
        self.gamma = gamma
        self.lam = lam
        self.whiten = whiten

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:
        """Fill in `advantages_BT` and `returns_BT`."""
        assert batch.values_BT is not None
        steps_BT = self.steps(batch)
        raw_BT = generalised(token_rewards(batch), batch.values_BT, steps_BT, self.gamma, self.lam)
        returns_BT = (raw_BT + batch.values_BT).masked_fill(~steps_BT, 0).to(batch.values_BT.dtype)
        advantages_BT = whiten(raw_BT, steps_BT, reduce) if self.whiten else raw_BT
        return with_advantages(replace(batch, returns_BT=returns_BT), advantages_BT)

    def steps(self, batch: Batch) -> Tensor:
        """Which tokens are time steps, bool [B,T]."""
        return batch.acted_BT
