"""Where a step's groups come from: questions in a seeded order, each played several times, and rewarded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from forage.concurrency import together
from forage.errors import RewardError, TrainingError
from forage.interfaces import Reward
from forage.rollout import Rollout
from forage.types import Group, Question, StopReason, Trajectory


@dataclass(slots=True)
class Harvest:
    """What one step's rollouts gave."""

    groups: list[Group]
    failed: list[Trajectory] = field(default_factory=list)  # ended by a failed search, left out of the groups
    seconds: float = 0.0
    tail_seconds: float = 0.0  # of them, after nine in ten episodes had ended: waiting for the slowest

    @property
    def trajectories(self) -> list[Trajectory]:
        """All that can be learned from, group by group."""
        return [trajectory for group in self.groups for trajectory in group.trajectories]


class FreshSource:
    """Plays every group with the newest weights, when it is asked for.

    The order of questions is a permutation of the data set, another one each epoch, from the run's seed alone; so the
    position in it is the step, and a resumed run takes up where it stopped.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        rollout: Rollout,
        reward: Reward,
        *,
        batch_questions: int,
        samples: int,
        seed: int,
        max_failure_rate: float,
    ) -> None:
        self._questions, self._rollout, self._reward = questions, rollout, reward
        self._batch, self._samples, self._seed = batch_questions, samples, seed
        self._max_failure_rate = max_failure_rate
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def questions(self, step: int) -> list[Question]:
        """The questions of a step (counted from 1)."""
        first = (step - 1) * self._batch
        return [self._question(position) for position in range(first, first + self._batch)]

    def _question(self, position: int) -> Question:
        epoch, index = divmod(position, len(self._questions))
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, epoch, 1])))
            self._epoch, self._order = epoch, rng.permutation(len(self._questions))
        return self._questions[int(self._order[index])]

    async def take(self, step: int) -> Harvest:
        """Play and reward the groups of a step.

        Raises:
            TrainingError: more searches failed than the run allows.
        """
        started, ended = time.perf_counter(), []
        questions = self.questions(step)

        async def one(position: int, question: Question, sample: int) -> Trajectory:
            trajectory = await self._rollout.episode(
                question,
                group=f"{question.dataset}/{question.id}/{position}",
                sample=sample,
                seed=(self._seed, step, position),
            )
            ended.append(time.perf_counter())
            return trajectory

        trajectories = await together(
            one(position, question, sample)
            for position, question in enumerate(questions)
            for sample in range(self._samples)
        )
        seconds = time.perf_counter() - started
        harvest = await self._rewarded(trajectories)
        harvest.seconds, harvest.tail_seconds = seconds, ended[-1] - ended[int(0.9 * (len(ended) - 1))]
        self._check_failures(harvest)
        return harvest

    async def _rewarded(self, trajectories: list[Trajectory]) -> Harvest:
        harvest = Harvest([])
        for first in range(0, len(trajectories), self._samples):
            group = trajectories[first : first + self._samples]
            harvest.failed += [t for t in group if t.stop is StopReason.RETRIEVER_ERROR]
            if alive := [t for t in group if t.stop is not StopReason.RETRIEVER_ERROR]:
                scores = await self._reward(alive)
                if len(scores) != len(alive):
                    raise RewardError(f"the reward gave {len(scores)} scores for {len(alive)} trajectories")
                harvest.groups.append(Group(alive, scores))
        return harvest

    def _check_failures(self, harvest: Harvest) -> None:
        searches = sum(t.searches for t in harvest.trajectories + harvest.failed) + len(harvest.failed)
        rate = len(harvest.failed) / max(searches, 1)
        if harvest.failed and rate > self._max_failure_rate:
            raise TrainingError(
                f"{len(harvest.failed)} of {searches} searches failed (search.max_failure_rate = "
                f"{self._max_failure_rate}); the last one said: {harvest.failed[-1].failure}"
            )
