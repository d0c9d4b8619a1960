"""REINFORCE++ with a baseline: group-relative rewards, whitened over the whole batch."""

from __future__ import annotations

from forage.advantages.compare import centred
from forage.advantages.timesteps import whiten
from forage.batch import row_rewards, with_advantages
from forage.interfaces import Reduce
from forage.types import Batch


class ReinforcePPBaseline:
    """A = r - mean over the samples of a question, whitened over the acted tokens of the batch (arXiv 2501.03262).

    Whitening takes the mean over tokens off once more, and long episodes weigh more in it: so a group of equal
    rewards does not end at 0, and it counts in the spread. That is why such groups are not left out here.
    A lone sample counts as 0 before whitening. (verl keeps its reward.)
    """

    needs: frozenset[str] = frozenset()
    group_relative = False
    min_samples = 2

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:
        """Fill in `advantages_BT`."""
        centred_B = centred(row_rewards(batch), batch.group_B)
        centred_BT = centred_B[:, None].expand(batch.acted_BT.shape)
        return with_advantages(batch, whiten(centred_BT, batch.acted_BT, reduce))
