"""Exact match, format and retrieval in one table: the reward of Search-R1 v0.3 (arXiv 2505.15117)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from forage.rewards.format import well_formed
from forage.rewards.retrieval import found_answer
from forage.text import Match, exact_match
from forage.types import Scores, Trajectory

Share = Annotated[float, Meta(ge=0, le=1)]


class FormattedMatch:
    """What an episode is worth, by answer and format:

        right, format kept    1                 wrong, format kept    format (+ retrieval where the answer was found)
        right, format broken  1 - format        wrong, format broken  answered
                                                no answer             0

    The defaults are those of the published v0.3 runs. A kept format is that of the reward `format`.

    Args:
        format: what a kept format is worth, and what a broken one costs a right answer.
        answered: what a wrong answer in a broken format is worth.
        retrieval: added to a wrong answer in a kept format, where a passage held the right one.
        match: how that passage is found: by whole `words`, or by `characters`, as Search-R1 counts.
    """

    def __init__(
        self, *, format: Share = 0.2, answered: Share = 0.1, retrieval: Share = 0.0, match: Match = "words"
    ) -> None:
        self._format, self._answered, self._retrieval, self._match = format, answered, retrieval, match

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        return [self._score(trajectory) for trajectory in group]

    def _score(self, trajectory: Trajectory) -> Scores:
        answer, kept = trajectory.answer, well_formed(trajectory)
        right = answer is not None and exact_match(answer, trajectory.question.answers)
        found = found_answer(trajectory, self._match)
        parts = {"em": float(right), "format": float(kept), "retrieval": float(found)}
        if right:
            return Scores(1.0 if kept else 1.0 - self._format, parts)
        if kept:
            return Scores(self._format + self._retrieval * found, parts)
        return Scores(0.0 if answer is None else self._answered, parts)
