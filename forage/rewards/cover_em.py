"""Cover exact match: a gold answer stands in the episode's answer."""

from __future__ import annotations

from collections.abc import Sequence

from forage.text import Match, contains_answer
from forage.types import Scores, Trajectory


class CoverMatch:
    """1 where some gold answer occurs in the episode's answer, both normalised, else 0; no answer gives 0.

    It forgives "It was Kane Bilo.", and pays an answer that names every candidate too: put a price on length.

    Args:
        match: `words` (whole words: "cat" is not in "concatenate"), or `characters`, as Search-R1 and FlashRAG count.
    """

    def __init__(self, *, match: Match = "words") -> None:
        self._match = match

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        return [self._score(trajectory) for trajectory in group]

    def _score(self, trajectory: Trajectory) -> Scores:
        hit = float(contains_answer(trajectory.answer or "", trajectory.question.answers, match=self._match))
        return Scores(hit, {"cover_em": hit})
