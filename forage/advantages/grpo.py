"""Group-relative advantages."""

from __future__ import annotations

from forage.advantages.compare import normalised
from forage.batch import row_rewards, with_advantages
from forage.interfaces import Reduce
from forage.types import Batch


class GRPO:
    """A = (r - mean) / (std + epsilon), over the samples of one question (GRPO, arXiv 2402.03300, section 4.1.2).

    The std is the unbiased one. Exactly 0 where all rewards of a group are equal or the group has one member: there
    is nothing to compare. (Peers divide a rounding error by epsilon there, or keep a lone sample's reward.)

    Args:
        epsilon: added to the standard deviation.
    """

    needs: frozenset[str] = frozenset()
    group_relative = True
    min_samples = 2

    def __init__(self, *, epsilon: float = 1e-6) -> None:
        self.epsilon = epsilon

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:  # noqa: ARG002 (groups are whole in one process)
        """Fill in `advantages_BT`: the row's advantage on each acted token."""
        advantages_B = normalised(row_rewards(batch), batch.group_B, self.epsilon)
        return with_advantages(batch, advantages_B[:, None])
