"""Group-relative advantages that are not divided by a spread."""

from __future__ import annotations

from forage.advantages.compare import centred
from forage.batch import row_rewards, with_advantages
from forage.interfaces import Reduce
from forage.types import Batch


class DrGRPO:
    """A = r - mean, over the samples of one question (Dr. GRPO, arXiv 2503.20783).

    Dividing by the std, as GRPO does, gives questions that are nearly always or nearly never answered more weight.
    Exactly 0 where all rewards of a group are equal or the group has one member.
    """

    needs: frozenset[str] = frozenset()
    group_relative = True
    min_samples = 2

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:  # noqa: ARG002 (groups are whole in one process)
        """Fill in `advantages_BT`: the row's advantage on each acted token."""
        return with_advantages(batch, centred(row_rewards(batch), batch.group_B)[:, None])
