"""Credit turn by turn."""

from __future__ import annotations

from forage.advantages import turns
from forage.advantages.compare import less_others
from forage.advantages.timesteps import returns
from forage.batch import with_advantages
from forage.interfaces import Reduce
from forage.types import Batch


class TurnCredit:
    """A(turn k) = what is earned from turn k on, less the mean of that over the other samples of the question.

    A sample that ended before turn k earned 0 from there on, and counts. A turn is not credited for the rewards of
    turns before it. Without rewards of turns, the first turn gets what RLOO gives.

    Unbiased also where the policy decides when to stop: the baseline of turn k is a number made of the other samples
    alone, which are drawn independently of this one. Given what came before turn k, the expectation of the gradient of
    log p(turn k) is 0, so the baseline's share of it is 0; and what was earned earlier does not depend on turn k. The
    own sample enters nowhere: a mean over all samples that reached turn k would hold it, and its reaching turn k.
    Undiscounted. Equal totals can differ by their turns; so groups of equal rewards are not left out.
    """

    needs: frozenset[str] = frozenset()
    group_relative = False
    min_samples = 2

    def __call__(self, batch: Batch, reduce: Reduce) -> Batch:  # noqa: ARG002 (groups are whole in one process)
        """Fill in `advantages_BT`: the turn's advantage on each of its acted tokens."""
        returns_BK = returns(turns.rewards(batch), turns.taken(batch), 1.0)
        return with_advantages(batch, turns.on_tokens(batch, less_others(returns_BK, batch.group_B)))
