"""Exact match: the whole reward of the Search-R1 paper (arXiv 2503.09516)."""

from __future__ import annotations

from collections.abc import Sequence

from forage.text import exact_match
from forage.types import Scores, Trajectory


class ExactMatch:
    """1 where the episode's answer equals a gold answer after normalisation, else 0; no answer gives 0.

    It reads the answer that the episode ended with, never its text, so that nothing in a prompt or a passage can match.
    """

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        return [self._score(trajectory) for trajectory in group]

    def _score(self, trajectory: Trajectory) -> Scores:
        answer = trajectory.answer
        hit = float(answer is not None and exact_match(answer, trajectory.question.answers))
        return Scores(hit, {"em": hit})
