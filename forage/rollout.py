"""One episode, straight down: think and search, read what was found, go on, answer. Sees Protocols only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from forage.errors import RetrieverError
from forage.interfaces import Engine, Renderer, Retriever
from forage.types import (
    Action,
    Answer,
    Completion,
    Found,
    Invalid,
    Question,
    Retry,
    Sampling,
    Search,
    StopReason,
    Trajectory,
    Turn,
)

Policy = Callable[[Trajectory, int], Awaitable[Completion]]
"""The next turn after a trajectory, of at most so many tokens: an engine's session, or a script."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets of an episode, in turns and tokens.

    Every turn but the last may search; a turn without a usable action is spent all the same.
    """

    max_searches: int = 4
    max_turn_tokens: int = 500
    max_observation_tokens: int = 500
    max_tokens: int = 4096  # of the whole episode, prompt included


async def play(
    trajectory: Trajectory, policy: Policy, renderer: Renderer, retriever: Retriever, k: int, limits: Limits
) -> None:
    """Play one episode to its end. `trajectory` is written as it goes; its `stop` says how it ended.

    What stands in it already (a branch) counts towards the limits.
    """
    if not trajectory.tokens:
        trajectory.observe(renderer.prompt(trajectory.question.text))
    for searches_left in range(limits.max_searches - len(trajectory.turns), -1, -1):
        room = limits.max_tokens - len(trajectory.tokens)
        if room <= 0:
            trajectory.stop = StopReason.CONTEXT_FULL
            return
        completion = await policy(trajectory, min(limits.max_turn_tokens, room))
        action = renderer.parse(completion)
        trajectory.act(completion)
        turn = Turn(action, thought_tokens=_thought(renderer, action, completion))
        trajectory.turns.append(turn)
        if isinstance(action, Answer):
            trajectory.stop = StopReason.ANSWERED
            return
        if isinstance(action, Invalid) or searches_left == 0:
            trajectory.wasted += len(completion.tokens)
        if searches_left == 0:
            break
        try:
            seen = await _see(action, turn, retriever, k)
        except RetrieverError as error:
            trajectory.stop, trajectory.failure = StopReason.RETRIEVER_ERROR, str(error)
            return
        room = limits.max_tokens - len(trajectory.tokens)
        observation = renderer.observation(seen, searches_left - 1, min(limits.max_observation_tokens, room))
        if not observation:
            trajectory.stop = StopReason.CONTEXT_FULL
            return
        trajectory.observe(observation)
    trajectory.stop = StopReason.NO_ANSWER


def _thought(renderer: Renderer, action: Action, completion: Completion) -> int | None:
    """Tokens of the turn beside its action; only some renderers tell, and without an action there is no beside."""
    tell: Callable[[Completion], int] | None = getattr(renderer, "thought", None)
    return tell(completion) if tell and not isinstance(action, Invalid) else None


async def _see(action: Search | Invalid, turn: Turn, retriever: Retriever, k: int) -> Found | Retry:
    """Run the turn's search; a turn without one is told to try again."""
    if isinstance(action, Invalid):
        return Retry(action.reason)
    outcomes = await retriever.search(action.queries, k)
    for outcome in outcomes:
        if isinstance(outcome, RetrieverError):
            raise outcome
    turn.results = [outcome for outcome in outcomes if not isinstance(outcome, RetrieverError)]
    return Found(turn.results)


def turn_seed(*stream: int) -> int:
    """One number from (run seed, step, question, sample, turn), so that any turn can be replayed alone."""
    return int(np.random.SeedSequence(stream).generate_state(1, np.uint64)[0])


@dataclass(frozen=True, slots=True)
class Rollout:
    """Episodes of a policy: what they are played with."""

    engine: Engine
    renderer: Renderer
    retriever: Retriever
    k: int
    limits: Limits
    temperature: float = 1.0

    async def episode(
        self,
        question: Question,
        *,
        group: str = "",
        sample: int = 0,
        seed: tuple[int, ...] = (0,),
        on_token: Callable[[int], None] | None = None,
    ) -> Trajectory:
        """Play one episode with the engine; `seed` is the stream its turns' seeds derive from."""
        return await self.play_on(Trajectory(question, group or question.id, sample), seed=seed, on_token=on_token)

    async def play_on(
        self, trajectory: Trajectory, *, seed: tuple[int, ...] = (0,), on_token: Callable[[int], None] | None = None
    ) -> Trajectory:
        """Play an episode from where it stands to its end, and return it."""
        async with self.engine.session(trajectory.group) as session:

            async def policy(so_far: Trajectory, max_tokens: int) -> Completion:
                seeded = turn_seed(*seed, trajectory.sample, len(so_far.turns))
                sampling = Sampling(max_tokens, self.temperature, seeded, self.renderer.stop)
                return await session.generate(so_far.tokens, sampling, on_token)

            await play(trajectory, policy, self.renderer, self.retriever, self.k, self.limits)
        return trajectory
