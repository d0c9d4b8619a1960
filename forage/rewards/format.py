"""Whether an episode keeps to the protocol."""

from __future__ import annotations

from collections.abc import Sequence

from forage.types import Answer, Invalid, Scores, Trajectory


class Format:
    """1 where each turn is its reasoning, then a search or the answer, and nothing else, and the last one answers.

    The validity of Search-R1's v0.3 reward (arXiv 2505.15117), as a term for sums. It reads what the renderer said of
    each turn that the policy wrote, so that prompts and passages, cut or not, can't spoil it.
    """

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        return [self._score(trajectory) for trajectory in group]

    def _score(self, trajectory: Trajectory) -> Scores:
        valid = float(well_formed(trajectory))
        return Scores(valid, {"format": valid})


def well_formed(trajectory: Trajectory) -> bool:
    """Whether the episode ended with an answer and every turn of it keeps to the protocol."""
    actions = [turn.action for turn in trajectory.turns]
    ended = bool(actions) and isinstance(actions[-1], Answer)
    return ended and all(not isinstance(action, Invalid) and action.well_formed for action in actions)
