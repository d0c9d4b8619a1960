"""Leave-one-out advantages."""

from __future__ import annotations

from forage.advantages.compare import less_others
from forage.batch import row_rewards, with_advantages
from forage.interfaces import Reduce
from forage.types import Batch


class RLOO:
    """A = r - mean of the other samples' rewards, over the samples of one question (RLOO, arXiv 2402.14740).

    A sample's own reward is not in its baseline, so that the gradient is unbiased. It is n / (n - 1) times that of
    `dr_grpo`. Exactly 0 where all rewards of a group are equal or the group has one member.
    """

    needs: frozenset[str] = frozenset()
    group_relative = True
    min_samples = 2

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:  # noqa: ARG002 (groups are whole in one process)
        """Fill in `advantages_BT`: the row's advantage on each acted token."""
        return with_advantages(batch, less_others(row_rewards(batch), batch.group_B)[:, None])
