"""The recorded step played again by Forage: the same code and the same work, but the tokens that come out are given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from forage import build
from forage.config import Config
from forage.engines.local import LocalEngine
from forage.engines.rows import LAST_STEP, RULE, STEP, TOKEN, Rows, Start
from forage.engines.sampler import Sample
from forage.engines.stopping import Stops
from forage.models.causal_lm import Policy
from forage.retrievers.gather import Gather
from forage.rollout import Rollout, turn_seed
from forage.types import Group, Passage, Scores, Trajectory

Script = Mapping[int, Sequence[int]]
"""A turn's seed -> the tokens that it samples."""


class ReplayRows(Rows):
    """Samples as ever, then puts the scripted token in the place of each sampled one."""

    def __init__(self, script: Script, slots: int, max_tokens: int, device: torch.device, sample: Sample) -> None:
        super().__init__(slots, max_tokens, device, sample)
        self._script = script
        self._given = torch.zeros_like(self._tokens)

    def start(self, starts: Sequence[Start]) -> None:
        super().start(starts)
        for s in starts:
            given = torch.tensor(self._script[s.sampling.seed])
            self._given[s.row, : len(given)] = given

    @torch.inference_mode()
    def advance(self, logits_RV: Tensor, temperatures: Sequence[float], stops: Stops) -> list[int]:
        super().advance(logits_RV, temperatures, stops)
        state = self._state[: len(logits_RV)]
        step = state[:, STEP, None] - 1
        drawn = state[:, TOKEN, None].clone()
        given = self._given[: len(state)].gather(1, step)
        state[:, TOKEN] = given.squeeze(1)
        self._tokens[: len(state)].scatter_(1, step, given)
        # log p differs by the logits' difference (at temperature 1)
        self._logprobs[: len(state)].scatter_add_(1, step, logits_RV.gather(1, given) - logits_RV.gather(1, drawn))
        over = stops.may_end(state[:, RULE], state[:, TOKEN]) | (step.squeeze(1) >= state[:, LAST_STEP])
        return over.nonzero().squeeze(1).tolist()


class ReplayEngine(LocalEngine):
    """A `LocalEngine` whose rows follow a script."""

    def __init__(self, script: Script, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        sizes = len(self._slots.holders), self._slot_tokens
        self._rows = ReplayRows(script, *sizes, self._decoder.device, self._decoder.kernels.sample)


@dataclass(frozen=True, slots=True)
class Part:
    """What an episode was shown, and what it then sampled."""

    observed: list[int]
    acted: list[int]


def parts(trajectory: Trajectory) -> list[Part]:
    """The trajectory's turns. An observation at the very end (the budget was spent) belongs to none."""
    runs = [
        (acted, [token for token, _ in run])
        for acted, run in groupby(zip(trajectory.tokens, trajectory.acted, strict=True), key=lambda pair: pair[1])
    ]
    assert runs[0][0] == 0, "an episode begins with a prompt"
    return [Part(seen, sampled) for (_, seen), (_, sampled) in zip(runs[::2], runs[1::2], strict=False)]


class RecordedIndex:
    """Answers the recorded queries at once."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._found: dict[str, list[Passage]] = {}
        for trajectory in rows(groups):
            for turn in trajectory.turns:
                queries = getattr(turn.action, "queries", ())
                self._found |= {q: list(found) for q, found in zip(queries, turn.results, strict=False)}

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:  # noqa: ARG002 (recorded at one k)
        return [self._found[query] for query in queries]


@dataclass
class Replay:
    """Plays a recorded step with Forage's own rollout code: engine, renderer, gatherer, event loop."""

    groups: Sequence[Group]
    config: Config
    policy: Policy
    engine: ReplayEngine = field(init=False)

    def __post_init__(self) -> None:
        script = {
            turn_seed(*_seed(g), t.sample, number): part.acted
            for g, group in enumerate(self.groups)
            for t in group.trajectories
            for number, part in enumerate(parts(t))
        }
        self.engine = ReplayEngine(
            script,
            self.policy.model,
            self.policy.tokenizer,
            self.config.rollout.max_tokens,
            True,
            **self.config.engine.options,
        )
        writer = build.renderer(self.config, self.policy.tokenizer)
        searcher = Gather(RecordedIndex(self.groups), cache_size=0)
        self._rollout: Rollout = build.rollout(self.config, self.engine, writer, searcher, 1.0)

    async def play(self) -> list[Group]:
        """The groups again, with the logprobs of the weights that the engine has."""
        played = iter(await asyncio.gather(*self._episodes()))
        return [Group([next(played) for _ in g.trajectories], [Scores(s.total) for s in g.scores]) for g in self.groups]

    def _episodes(self) -> Iterator[Any]:
        for g, group in enumerate(self.groups):
            for t in group.trajectories:
                yield self._rollout.episode(t.question, group=f"{g}", sample=t.sample, seed=_seed(g))

    def check(self, played: Sequence[Group]) -> None:
        """Every token as recorded, or an AssertionError."""
        for here, there in zip(rows(played), rows(self.groups), strict=True):
            assert (here.tokens, here.acted) == (there.tokens, there.acted), f"{there.group} {there.sample} differs"


def rows(groups: Sequence[Group]) -> list[Trajectory]:
    return [trajectory for group in groups for trajectory in group.trajectories]


def _seed(position: int) -> tuple[int, ...]:
    return (0, 1, position)
