"""Groups of episodes, played side by side and rewarded."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from forage.concurrency import together
from forage.errors import RewardError
from forage.interfaces import Reward
from forage.rollout import Rollout, turn_seed
from forage.sources.trees import branches
from forage.types import Group, Harvest, Question, Scores, StopReason, Trajectory

Seed = tuple[int, int, int]
"""What the seeds of a group derive from: the run's, the step, the group's position in it."""


class Player:
    """Plays questions in groups of `samples` episodes.

    Args:
        rollout: what episodes are played with.
        reward: scores the samples of a question together.
        samples: episodes a question.
        trees: how many of them begin at the question; when these have ended, the others branch off from them. 0: all
            begin there.
        seed: of the run.
        greedy: plays one episode more a question, whose reward is the group's baseline; it is not learned from.
        leave_out: episodes that ended so are rewarded, but not learned from.
        min_samples: a group with fewer episodes left is not learned from at all.
    """

    def __init__(
        self,
        rollout: Rollout,
        reward: Reward,
        *,
        samples: int,
        trees: int = 0,
        seed: int,
        greedy: Rollout | None = None,
        leave_out: Collection[StopReason] = (),
        min_samples: int = 1,
    ) -> None:
        self._reward, self._samples, self._trees, self._seed = reward, samples, trees, seed
        self._rollouts = [rollout] * samples + ([greedy] if greedy else [])
        self._leave_out, self._min_samples = frozenset(leave_out), min_samples

    async def play(self, questions: Sequence[Question], *, step: int, first: int = 0) -> Harvest:
        """One group a question; their numbers in the step count from `first`, and seeds derive from them."""
        started = time.perf_counter()
        seeds = [(self._seed, step, position) for position in range(first, first + len(questions))]
        groups = [self._begun(question, seed[-1]) for question, seed in zip(questions, seeds, strict=True)]
        tail_seconds = await self._play_on(groups, seeds)
        if self._trees:
            tail_seconds += await self._grow(groups, seeds)
        harvest = Harvest([], seconds=time.perf_counter() - started, tail_seconds=tail_seconds)
        for group, whole in zip(groups, await together(map(self._rewarded, groups)), strict=True):
            self._gather(harvest, group, whole)
        return harvest

    def _begun(self, question: Question, position: int) -> list[Trajectory]:
        """The episodes of a question that begin with it."""
        group = f"{question.dataset}/{question.id}/{position}"
        samples = [*range(self._trees or self._samples), *range(self._samples, len(self._rollouts))]
        return [Trajectory(question, group, s, tree=s if s < self._trees else None) for s in samples]

    async def _grow(self, groups: Sequence[list[Trajectory]], seeds: Sequence[Seed]) -> float:
        """Fill the groups up with branches, before the greedy episodes, and play these; returns as `_play_on`."""
        rooted = zip(groups, seeds, strict=True)
        begun = [branches(group[: self._trees], self._samples, turn_seed(*seed)) for group, seed in rooted]
        for group, branched in zip(groups, begun, strict=True):
            group[self._trees : self._trees] = branched
        return await self._play_on(begun, seeds)

    async def _play_on(self, groups: Sequence[Sequence[Trajectory]], seeds: Sequence[Seed]) -> float:
        """Play all to their ends, side by side; returns the seconds behind the end of nine in ten."""
        ended = []

        async def one(trajectory: Trajectory, seed: Seed) -> None:
            await self._rollouts[trajectory.sample].play_on(trajectory, seed=seed)
            ended.append(time.perf_counter())

        await together(one(trajectory, seed) for group, seed in zip(groups, seeds, strict=True) for trajectory in group)
        return ended[-1] - ended[int(0.9 * (len(ended) - 1))] if ended else 0.0

    async def _rewarded(self, episodes: list[Trajectory]) -> Group | None:
        """One question's samples, and as their baseline what the greedy episode earned; None where all of the samples
        ended by a failed search."""
        alive = [t for t in episodes[: self._samples] if not _failed(t)]
        if not alive:
            return None
        whole = Group(alive, await self._scores(alive))
        if greedy := [t for t in episodes[self._samples :] if not _failed(t)]:
            whole.baseline = (await self._scores(greedy))[0].total
        return whole

    def _gather(self, harvest: Harvest, episodes: list[Trajectory], whole: Group | None) -> None:
        """Add one question's episodes to the harvest."""
        failed = [_failed(t) for t in episodes]
        harvest.failed += [t for t in episodes if _failed(t)]
        harvest.searches += sum(t.own_searches for t in episodes) + sum(failed)
        if whole is None:
            harvest.gone += 1
        elif any(failed[self._samples :]):
            self._lose(harvest, whole)
        else:
            self._keep(harvest, whole)

    def _keep(self, harvest: Harvest, whole: Group) -> None:
        """Learn from what is left of the group, if enough is."""
        kept = _part(whole, [t.stop not in self._leave_out for t in whole.trajectories])
        if len(kept.trajectories) < max(self._min_samples, 1):
            self._lose(harvest, whole)
            return
        harvest.groups.append(kept)
        if len(kept.trajectories) < len(whole.trajectories):
            harvest.left_out.append(_part(whole, [t.stop in self._leave_out for t in whole.trajectories]))

    def _lose(self, harvest: Harvest, whole: Group) -> None:
        harvest.left_out.append(whole)
        harvest.gone += 1

    async def _scores(self, group: Sequence[Trajectory]) -> list[Scores]:
        scores = await self._reward(group)
        if len(scores) != len(group):
            raise RewardError(f"the reward gave {len(scores)} scores for {len(group)} trajectories")
        return scores


def _failed(trajectory: Trajectory) -> bool:
    return trajectory.stop is StopReason.RETRIEVER_ERROR


def _part(group: Group, chosen: Sequence[bool]) -> Group:
    pairs = zip(group.trajectories, group.scores, chosen, strict=True)
    kept = [(trajectory, score) for trajectory, score, this in pairs if this]
    return Group([trajectory for trajectory, _ in kept], [score for _, score in kept], group.baseline)
