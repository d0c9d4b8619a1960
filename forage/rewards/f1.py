"""Token F1: partial credit for an answer that shares words with a gold answer."""

from __future__ import annotations

from collections.abc import Sequence

from forage.text import token_f1
from forage.types import Scores, Trajectory


class TokenF1:
    """SQuAD's token F1 between the episode's answer and the nearest gold answer; no answer gives 0."""

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        return [self._score(trajectory) for trajectory in group]

    def _score(self, trajectory: Trajectory) -> Scores:
        answer = trajectory.answer
        f1 = 0.0 if answer is None else token_f1(answer, trajectory.question.answers)
        return Scores(f1, {"f1": f1})
