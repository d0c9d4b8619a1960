"""REINFORCE++: returns, whitened over the whole batch."""

from __future__ import annotations

from forage.advantages.timesteps import returns, whiten
from forage.batch import token_rewards, with_advantages
from forage.config import Share
from forage.interfaces import Reduce
from forage.types import Batch


class ReinforcePP:
    """A(t) = the return from token t on, whitened over the acted tokens of the batch (REINFORCE++, arXiv 2501.03262).

    The paper's KL to the reference is in the rewards, token by token. Only acted tokens are time steps, so that a
    reward reaches the turns before it. (verl up to January 2026 cut the return at each observed token.) One sample
    a question will do.

    Args:
        gamma: what a reward one acted token later is worth.
    """

    needs: frozenset[str] = frozenset()
    group_relative = False

    def __init__(self, *, gamma: Share = 1.0) -> None:
        self.gamma = gamma

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:
        """Fill in `advantages_BT`."""
        returns_BT = returns(token_rewards(batch), batch.acted_BT, self.gamma)
        return with_advantages(batch, whiten(returns_BT, batch.acted_BT, reduce))
