"""Advantages of episodes that share their beginnings."""

from __future__ import annotations

from forage.advantages.compare import normalised
from forage.batch import row_rewards, with_advantages
from forage.interfaces import Reduce
from forage.types import Batch


class TreeGRPO:
    """A = A(in its tree) + A(in its group), each (r - mean) / (std + epsilon) (Tree-GRPO, arXiv 2509.21240).

    A row is a leaf: an episode from the question to its end. The first term compares it with the leaves of its own
    tree, which share turns with it; the second with all leaves of the question. Both stand on all acted tokens of
    the row, shared ones included; so a shared turn gets the sum over the leaves behind it. Exactly 0 where all rewards
    are equal. A leaf that is alone in its tree gets 0 from it (in the paper's code its reward, as it is).

    Args:
        epsilon: added to the standard deviations, which are unbiased.
    """

    needs: frozenset[str] = frozenset({"tree_B"})
    group_relative = True
    min_samples = 2

    def __init__(self, *, epsilon: float = 1e-6) -> None:
        self.epsilon = epsilon

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:  # noqa: ARG002 (groups are whole in one process)
        """Fill in `advantages_BT`: the row's advantage on each acted token."""
        assert batch.tree_B is not None
        rewards_B = row_rewards(batch)
        tree_B = normalised(rewards_B, batch.tree_B, self.epsilon)
        group_B = normalised(rewards_B, batch.group_B, self.epsilon)
        return with_advantages(batch, (tree_B + group_B)[:, None])
