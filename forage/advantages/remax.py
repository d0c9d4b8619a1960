"""Returns less what the greedy episode earned."""

from __future__ import annotations

from forage.advantages.timesteps import returns
from forage.batch import token_rewards, with_advantages
from forage.interfaces import Reduce
from forage.types import Batch


class ReMax:
    """A(t) = the return from token t on, less the reward of a greedy episode of the same question (arXiv 2310.10505).

    The baseline costs one more episode a question, and needs no second sample. Undiscounted; only acted tokens earn.
    """

    needs: frozenset[str] = frozenset({"baselines_B"})
    group_relative = False

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:  # noqa: ARG002 (nothing of the whole batch is used)
        """Fill in `advantages_BT`."""
        assert batch.baselines_B is not None
        returns_BT = returns(token_rewards(batch), batch.acted_BT, 1.0)
        return with_advantages(batch, returns_BT - batch.baselines_B[:, None])
