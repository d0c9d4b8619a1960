"""Group-relative advantages."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from forage.batch import row_rewards
from forage.interfaces import Reduce
from forage.types import Batch


class GRPO:
    """A = (r - mean) / (std + epsilon), over the samples of one question (GRPO, arXiv 2402.03300, section 4.1.2).

    The std is the unbiased one. Exactly 0 where all rewards of a group are equal or the group has one member: there
    is nothing to compare. (Peers divide a rounding error by epsilon there, or keep a lone sample's reward.)

    Args:
        epsilon: added to the standard deviation.
        normalize: divide by the standard deviation; without it the advantage is r - mean (Dr. GRPO, 2503.20783).
    """

    needs: frozenset[str] = frozenset()
    group_relative = True

    def __init__(self, *, epsilon: float = 1e-6, normalize: bool = True) -> None:
        self.epsilon = epsilon
        self.normalize = normalize

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:  # noqa: ARG002 (groups are whole in one process)
        """Fill in `advantages_BT`: the row's advantage on each acted token."""
        advantages_B = self.of_rewards(row_rewards(batch), batch.group_B)
        return replace(batch, advantages_BT=advantages_B[:, None] * batch.acted_BT)

    def of_rewards(self, rewards_B: Tensor, group_B: Tensor) -> Tensor:
        """Advantages of the rows, in the rewards' dtype; computed in float64, since a small spread is a difference."""
        _, index_B, size_G = torch.unique(group_B, return_inverse=True, return_counts=True)
        reward_B = rewards_B.double()
        centred_B = reward_B - _sums(reward_B, index_B, size_G)[index_B] / size_G[index_B]
        if self.normalize:
            variance_G = _sums(centred_B.square(), index_B, size_G) / (size_G - 1).clamp(min=1)
            centred_B = centred_B / (variance_G.sqrt() + self.epsilon)[index_B]
        equal_G = _equal(reward_B, index_B, len(size_G))
        advantages_B: Tensor = centred_B.masked_fill(equal_G[index_B], 0).to(rewards_B.dtype)
        return advantages_B


def _sums(values_B: Tensor, index_B: Tensor, size_G: Tensor) -> Tensor:
    return values_B.new_zeros(len(size_G)).index_add_(0, index_B, values_B)


def _equal(values_B: Tensor, index_B: Tensor, groups: int) -> Tensor:
    """Whether the values of each group are all the same, bool [G]."""
    start_G = values_B.new_zeros(groups)
    low_G = start_G.scatter_reduce(0, index_B, values_B, "amin", include_self=False)
    high_G = start_G.scatter_reduce(0, index_B, values_B, "amax", include_self=False)
    return low_G == high_G
