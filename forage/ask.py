"""`forage ask`: put one question to a trained agent, and watch it think, search and answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forage import build
from forage.errors import RetrieverError
from forage.evaluation import trained_agent
from forage.interfaces import Retriever, Tokenizer
from forage.records import to_record
from forage.types import Passage, Question

Write = Callable[[str, str], None]
"""(kind, text): kind is `policy` for what the policy writes, `passages` for what it is shown."""


class Stream:
    """Token ids to text as they come; an incomplete character waits for its rest."""

    def __init__(self, tokenizer: Tokenizer, write: Write) -> None:
        self._tokenizer, self._write = tokenizer, write
        self._tokens: list[int] = []
        self._shown = 0

    def __call__(self, token: int) -> None:
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        if not text.endswith("\ufffd"):
            self._write("policy", text[self._shown :])
            self._shown = len(text)


class Overheard:
    """A retriever that shows what it finds."""

    def __init__(self, inner: Retriever, write: Write) -> None:
        self._inner, self._write = inner, write

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage] | RetrieverError]:
        outcomes = await self._inner.search(queries, k)
        for outcome in outcomes:
            if not isinstance(outcome, RetrieverError):
                for passage in outcome:
                    self._write("passages", f"[{passage.title}] {passage.text}")
        return outcomes


def ask(
    run: Path,
    question: str,
    *,
    write: Write,
    overrides: Sequence[str] = (),
    step: int | None = None,
    best: bool = False,
) -> dict[str, Any]:
    """Answer one question greedily with a run's checkpoint.

    Returns:
        The episode's record: question, turns with what was searched and found, answer, stop.

    Raises:
        RetrieverError: the search engine failed.
    """
    agent = trained_agent(run, overrides, step=step, best=best)
    retriever = Overheard(agent.retriever, write)
    rollout = build.rollout(agent.config, agent.engine, agent.renderer, retriever, 0.0)
    asked = Question("asked", question, ())
    trajectory = asyncio.run(rollout.episode(asked, on_token=Stream(agent.policy.tokenizer, write)))
    if trajectory.failure:
        raise RetrieverError(trajectory.failure)
    return to_record(trajectory)
