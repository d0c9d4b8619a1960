"""Advantages of episodes, and of turns that start from the same state."""

from __future__ import annotations

import torch
from torch import Tensor

from forage.advantages import turns
from forage.advantages.compare import centred, normalised
from forage.advantages.timesteps import returns
from forage.batch import row_rewards, with_advantages
from forage.config import Amount, Share
from forage.interfaces import Reduce
from forage.types import Batch


class GiGPO:
    """A(turn) = A(episode) + weight * A(turn among those of the same state) (GiGPO, arXiv 2505.10978).

    The first term compares rewards over the samples of a question, as GRPO does. The second compares what is earned
    from a turn on, each turn later worth gamma times less, over the samples' turns of the same number that had been
    shown the same tokens. A turn that is alone in its state gets 0 from it. Equal rewards of a group can still differ
    by their turns, because of gamma or of rewards for turns; so such groups are not left out.

    Args:
        weight: of the second term.
        gamma: what a reward one turn later is worth.
        normalize: divide both terms by the standard deviation of what is compared; without it they are differences.
        epsilon: added to the standard deviation.
    """

    needs: frozenset[str] = frozenset()
    group_relative = False
    min_samples = 2

    def __init__(
        self, *, weight: Amount = 1.0, gamma: Share = 0.95, normalize: bool = True, epsilon: float = 1e-6
    ) -> None:
        self.weight = weight
        self.gamma = gamma
        self.normalize = normalize
        self.epsilon = epsilon

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:  # noqa: ARG002 (groups are whole in one process)
        """Fill in `advantages_BT`: the turn's advantage on each of its acted tokens."""
        taken_BK = turns.taken(batch)
        returns_BK = returns(turns.rewards(batch), taken_BK, self.gamma)
        turn_N = self._relative(returns_BK[taken_BK], turns.states(batch)[taken_BK])
        turn_BK = torch.zeros_like(returns_BK).masked_scatter(taken_BK, turn_N)
        episode_B = self._relative(row_rewards(batch), batch.group_B)
        return with_advantages(batch, turns.on_tokens(batch, episode_B[:, None] + self.weight * turn_BK))

    def _relative(self, values_B: Tensor, group_B: Tensor) -> Tensor:
        if self.normalize:
            return normalised(values_B, group_B, self.epsilon)
        return centred(values_B, group_B)
