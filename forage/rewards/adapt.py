"""Anything that scores, as a checked `Reward`."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from forage.errors import RewardError
from forage.interfaces import Reward
from forage.types import Scores, Trajectory

Function = Callable[[Trajectory], float | Scores | Awaitable[float | Scores]]


def as_reward(reward: Reward | Function, name: str = "") -> Reward:
    """`reward` with its results checked.

    A plain function, sync or async, is called with one trajectory at a time and returns a number (charted under the
    function's name) or `Scores`; any other object is called with a whole group, as `Reward` says. `name` stands in
    error messages.
    """
    plain = inspect.isroutine(reward) or isinstance(reward, functools.partial)
    part = getattr(getattr(reward, "func", reward), "__name__", type(reward).__name__)
    return _Checked(_EachAlone(reward, part) if plain else reward, name or part)


class _EachAlone:
    """A function of one trajectory, over a group."""

    def __init__(self, function: Any, part: str) -> None:
        self._function, self._part = function, part

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        return [await self._score(trajectory) for trajectory in group]

    async def _score(self, trajectory: Trajectory) -> Scores:
        value = self._function(trajectory)
        if inspect.isawaitable(value):
            value = await value
        return value if isinstance(value, Scores) else Scores(float(value), {self._part: float(value)})


class _Checked:
    """A reward that can't return anything but one finite score a trajectory.

    Raises:
        RewardError: the reward raised, or returned something else; names the reward and the question.
    """

    def __init__(self, reward: Any, name: str) -> None:
        self._reward, self._name = reward, name

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        question = group[0].question.id if group else ""
        try:
            scores = list(await self._reward(group))
        except RewardError:
            raise
        except Exception as error:
            raise RewardError(f"the reward {self._name!r} failed on question {question!r}: {error!r}") from error
        if len(scores) != len(group):
            raise RewardError(
                f"the reward {self._name!r} gave {len(scores)} scores, not {len(group)}, on question {question!r}"
            )
        if others := [score for score in scores if not isinstance(score, Scores)]:
            raise RewardError(f"the reward {self._name!r} gave {others[0]!r}, not Scores, on question {question!r}")
        for trajectory, score in zip(group, scores, strict=True):
            numbers = {"total": score.total, **score.parts, **{f"turn {n}": share for n, share in score.turns.items()}}
            if wrong := {name: value for name, value in numbers.items() if not math.isfinite(value)}:
                raise RewardError(f"the reward {self._name!r} is not a finite number on question {question!r}: {wrong}")
            if strange := [number for number in score.turns if number not in range(len(trajectory.turns))]:
                raise RewardError(f"the reward {self._name!r} names turns {strange} that question {question!r} had not")
        return scores
