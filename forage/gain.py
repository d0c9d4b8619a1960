"""What a search is worth: how much likelier its passages make the gold answer than other passages would."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Sequence

import numpy as np
from torch import Tensor

from forage.batch import collate
from forage.interfaces import Renderer
from forage.rollout import Limits
from forage.types import (
    Batch,
    Completion,
    Finish,
    Found,
    Group,
    Passage,
    Question,
    Scores,
    StopReason,
    Trajectory,
)

Logprobs = Callable[[Batch], Awaitable[Tensor]]
"""The policy's logprobs of acted tokens [B,T], 0 elsewhere."""
Results = Sequence[Sequence[Passage]]
STREAM = 3  # tells these random numbers from all others of the run's seed


class Gain:
    """Measures searches, with the policy that is to learn (IG-Search, arXiv 2604.15148).

        gain(turn) = log p(gold | context, what it found) - mean over others of log p(gold | context, what they found)

    The context is the episode up to the search, in its own tokens; the others are passages that were found for other
    questions of the step, shown in the same place in the same words; log p is the mean over the tokens of the first
    gold answer, behind the tag that opens an answer. Above 0 the passages helped more than chance. The samples of a
    question are compared with the same others, so that equal searches gain the same.

    Probes are trajectories of their own. None of their tokens stands in an episode, so none is learned.

    Args:
        renderer: writes the other observations, and the answer.
        limits: those that the episodes were played with.
        logprobs: of the policy.
        seed: of the run.
        others: searches that each one is compared with (fewer where the step has no more).
    """

    def __init__(self, renderer: Renderer, limits: Limits, logprobs: Logprobs, *, seed: int, others: int = 3) -> None:
        self._renderer, self._limits, self._logprobs = renderer, limits, logprobs
        self._seed, self._others = seed, others

    async def __call__(self, groups: Sequence[Group], step: int) -> None:
        """Write `gain` into the turns of the step's episodes that searched and were shown what was found.

        A question without a gold answer, and one beside which no other found anything, is not measured; nor is a search
        behind which the answer would not fit the episode's tokens.
        """
        found = list(_found(groups))
        for number, group in enumerate(groups):
            question = group.trajectories[0].question
            pool = [results for asked, results in found if asked != question]
            if pool and question.answers:
                rng = np.random.default_rng(np.random.SeedSequence([self._seed, step, number, STREAM]))
                drawn = rng.choice(len(pool), size=min(self._others, len(pool)), replace=False)
                await self._measure(group, [pool[i] for i in drawn])

    async def _measure(self, group: Group, others: Sequence[Results]) -> None:
        """One forward for all searches of a question; probes of one search share what comes before its passages."""
        measured = [
            (turn, probes)
            for row in group.trajectories
            for number, turn in enumerate(row.turns)
            if turn.results and (probes := self._probes(row, number, others))
        ]
        if not measured:
            return
        batch = collate([Group(probes, [Scores(0.0)] * len(probes)) for _, probes in measured])
        logprobs_BT = (await self._logprobs(batch)).cpu().double()
        mean_B = logprobs_BT.sum(1) / batch.acted_BT.sum(1)
        for (turn, _), (own, *theirs) in zip(measured, mean_B.view(len(measured), -1).tolist(), strict=True):
            turn.gain = own - sum(theirs) / len(theirs)

    def _probes(self, row: Trajectory, number: int, others: Sequence[Results]) -> list[Trajectory]:
        """The gold answer after what the turn's search found, and after what each of the others found; empty where
        nothing was shown, or not all of them fit."""
        start = bisect_right(row.turn, number)
        shown = _observed(row, start)
        if not shown:
            return []
        left = self._limits.max_searches - number - 1
        room = min(self._limits.max_observation_tokens, self._limits.max_tokens - start)
        seen = [shown, *(self._renderer.observation(Found(results), left, room) for results in others)]
        opening, gold = self._renderer.answer(row.question.answers[0])
        probes = [_probe(row.question, [*row.tokens[:start], *tokens, *opening], gold) for tokens in seen]
        fits = all(len(probe.tokens) <= self._limits.max_tokens for probe in probes)
        return probes if gold and fits else []


def _found(groups: Sequence[Group]) -> Iterator[tuple[Question, Results]]:
    """What every search of the step found, with the question it was asked for; not those that found nothing."""
    for group in groups:
        for row in group.trajectories:
            for turn in row.turns:
                if any(turn.results):
                    yield row.question, turn.results


def _observed(row: Trajectory, start: int) -> list[int]:
    """The observed tokens from `start` on, up to the next acted one."""
    acted = row.acted[start:]
    return row.tokens[start : start + acted.index(1)] if 1 in acted else row.tokens[start:]


def _probe(question: Question, context: Sequence[int], gold: list[int]) -> Trajectory:
    row = Trajectory(question, group="", sample=0, stop=StopReason.ANSWERED)
    row.observe(context)
    row.act(Completion(gold, [0.0] * len(gold), [0] * len(gold), Finish.STOP))
    return row
