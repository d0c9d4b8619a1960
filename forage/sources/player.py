"""Groups of episodes, played side by side and rewarded."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from forage.concurrency import together
from forage.errors import RewardError
from forage.interfaces import Reward
from forage.rollout import Rollout
from forage.types import Group, Harvest, Question, Scores, StopReason, Trajectory


class Player:
    """Plays questions in groups of `samples` episodes.

    Args:
        rollout: what episodes are played with.
        reward: scores the samples of a question together.
        samples: episodes a question.
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
        seed: int,
        greedy: Rollout | None = None,
        leave_out: Collection[StopReason] = (),
        min_samples: int = 1,
    ) -> None:
        self._reward, self._samples, self._seed = reward, samples, seed
        self._rollouts = [rollout] * samples + ([greedy] if greedy else [])
        self._leave_out, self._min_samples = frozenset(leave_out), min_samples

    async def play(self, questions: Sequence[Question], *, step: int, first: int = 0) -> Harvest:
        """One group a question; their numbers in the step count from `first`, and seeds derive from them."""
        started, ended = time.perf_counter(), []

        async def one(position: int, question: Question, sample: int) -> Trajectory:
            trajectory = await self._rollouts[sample].episode(
                question,
                group=f"{question.dataset}/{question.id}/{position}",
                sample=sample,
                seed=(self._seed, step, position),
            )
            ended.append(time.perf_counter())
            return trajectory

        size = len(self._rollouts)
        episodes = await together(
            one(position, question, sample)
            for position, question in enumerate(questions, start=first)
            for sample in range(size)
        )
        harvest = Harvest([], seconds=time.perf_counter() - started)
        harvest.tail_seconds = ended[-1] - ended[int(0.9 * (len(ended) - 1))]
        groups = [episodes[begin : begin + size] for begin in range(0, len(episodes), size)]
        for group, whole in zip(groups, await together(map(self._rewarded, groups)), strict=True):
            self._gather(harvest, group, whole)
        return harvest

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
        harvest.searches += sum(t.searches for t in episodes) + sum(failed)
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
