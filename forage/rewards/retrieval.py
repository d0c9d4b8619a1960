"""Whether the searches found the answer."""

from __future__ import annotations

from collections.abc import Sequence

from forage.text import Match, contains_answer
from forage.types import Scores, Trajectory


class Retrieval:
    """1 where a gold answer stands in the title or text of some passage that was found, else 0.

    The intermediate retrieval reward of arXiv 2505.15117, which found that it does not help by itself.

    Args:
        match: `words` (whole words), or `characters`, as Search-R1 counts.
    """

    def __init__(self, *, match: Match = "words") -> None:
        self._match = match

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        return [self._score(trajectory) for trajectory in group]

    def _score(self, trajectory: Trajectory) -> Scores:
        hit = float(found_answer(trajectory, self._match))
        return Scores(hit, {"retrieval": hit})


def found_answer(trajectory: Trajectory, match: Match = "words") -> bool:
    """Whether a gold answer stands in a passage of the episode."""
    golds = trajectory.question.answers
    passages = (passage for turn in trajectory.turns for result in turn.results for passage in result)
    return any(contains_answer(f"{passage.title} {passage.text}", golds, match=match) for passage in passages)
