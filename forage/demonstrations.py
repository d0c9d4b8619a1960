"""Scripted episodes for a warm start: behaviours a small model may have before any reinforcement.

A behaviour is a script that writes the next turn's text from what the episode has shown so far. Played through the
ordinary episode loop it gives an ordinary trajectory, acted tokens tagged. On the fictional world:

    purposeful   plans the path in its first thought, follows it search by search, answers with its end
    hasty        looks up the entity of the question and answers with any name it reads there
    aimless      looks names up as they come, then answers with one of them
    wavering     starts as purposeful does, and gives in to haste or aimlessness on the way
    recital      says names of its question again (no question, no search: practice in copying)

On any other data set, where no path is known, `aimless` and `hasty` search for capitalised words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from forage.datasets.fictional import Path
from forage.errors import ConfigError
from forage.interfaces import Renderer, Retriever, Tokenizer
from forage.rollout import Limits, Policy, play
from forage.types import Completion, Finish, Question, Trajectory

Script = Callable[[Trajectory], str]
"""The text of the next turn."""

NAME = re.compile(r"[A-Z][\w'’-]*(?: [A-Z][\w'’-]*)*")


def _think_search(thought: str, query: str) -> str:
    return f"<think> {thought}</think><search> {query}</search>"


def _think_answer(thought: str, answer: str) -> str:
    return f"<think> {thought}</think><answer> {answer}</answer>"


def names_in(text: str) -> list[str]:
    """Runs of capitalised words, in order, each once."""
    return list(dict.fromkeys(match.group() for match in NAME.finditer(text)))


def _names_seen(trajectory: Trajectory) -> list[str]:
    """Names in the newest passages, the passages' own titles last; the question's where nothing was found."""
    results = trajectory.turns[-1].results if trajectory.turns else ()
    passages = [passage for passages in results for passage in passages]
    if not passages:
        return names_in(trajectory.question.text)[1:] or [trajectory.question.text.split()[-1].strip("?.")]
    titles = [passage.title for passage in passages]
    inside = [name for passage in passages for name in names_in(passage.text) if name not in titles]
    return inside or titles


def purposeful(path: Path) -> Script:
    """Plan first; then one relation a turn: state what was found, keep the rest of the plan, search on."""

    def script(trajectory: Trajectory) -> str:
        done = len(trajectory.turns)
        if done == 0:
            return _think_search(f"First {', then '.join(path.relations)}.", path.entities[0])
        found = f"{path.relations[done - 1]}: {path.entities[done]}."
        if done == len(path.relations):
            return _think_answer(found, path.entities[done])
        return _think_search(f"{found} Next {', then '.join(path.relations[done:])}.", path.entities[done])

    return script


def hasty(rng: np.random.Generator, start: str | None) -> Script:
    """One look, then the first name that catches the eye."""

    def script(trajectory: Trajectory) -> str:
        names = _names_seen(trajectory)
        if not trajectory.turns:
            return _think_search("Let me look it up.", start or names[rng.integers(len(names))])
        return _think_answer("Good enough.", names[rng.integers(len(names))])

    return script


def aimless(rng: np.random.Generator, start: str | None, searches: int) -> Script:
    """From name to name without a plan, `searches` times."""

    def script(trajectory: Trajectory) -> str:
        names = _names_seen(trajectory)
        if not trajectory.turns:
            return _think_search("Let me look it up.", start or names[rng.integers(len(names))])
        name = names[rng.integers(len(names))]
        if len(trajectory.turns) < searches:
            return _think_search("Hmm, what about this.", name)
        return _think_answer("Good enough.", name)

    return script


def wavering(path: Path, rng: np.random.Generator) -> Script:
    """Purposeful up to a turn, hasty or aimless from there."""
    strays = 1 + int(rng.integers(len(path.relations)))
    before = purposeful(path)
    after = hasty(rng, None) if rng.random() < 0.5 else aimless(rng, None, strays + 1)
    return lambda trajectory: (before if len(trajectory.turns) < strays else after)(trajectory)


def recital(question: Question, others: Sequence[Question], rng: np.random.Generator) -> tuple[Question, Script]:
    """No search at all: names of other questions to say again, some or all of them, which teaches copying."""
    names = [names_in(other.text)[-1] for other in others]
    order = rng.permutation(len(names))[: 3 + int(rng.integers(len(names) - 2))]
    said = [names[i] for i in order] if rng.random() < 0.5 else names
    script = _think_answer(f"{', '.join(said)}.", names[rng.integers(len(names))])
    return replace(question, text=", ".join(names)), lambda _: script


def behaviour(name: str, path: Path | None, rng: np.random.Generator) -> Script:
    """The script called `name`.

    Raises:
        ConfigError: there is no such behaviour, or it needs a path and the data set knows none.
    """
    start = path.entities[0] if path else None
    if name == "hasty":
        return hasty(rng, start)
    if name == "aimless":
        return aimless(rng, start, 1 + int(rng.integers(3)))
    if name not in ("purposeful", "wavering"):
        raise ConfigError(f"behaviour {name!r} is unknown; known: purposeful, wavering, hasty, aimless, recital")
    if path is None:
        raise ConfigError(f"behaviour {name!r} needs the path of a question, which only data.kind = 'fictional' knows")
    return purposeful(path) if name == "purposeful" else wavering(path, rng)


def mixture(shares: Mapping[str, float], rng: np.random.Generator) -> str:
    """Draw a behaviour's name by its share."""
    names: Sequence[str] = list(shares)
    weights = np.array([shares[name] for name in names], dtype=float)
    return names[rng.choice(len(names), p=weights / weights.sum())]


async def demonstrate(
    question: Question,
    script: Script,
    tokenizer: Tokenizer,
    renderer: Renderer,
    retriever: Retriever,
    k: int,
    limits: Limits,
) -> Trajectory:
    """Play `script` through the episode loop; its text becomes the acted tokens."""
    trajectory = Trajectory(question, question.id, 0)

    async def policy(so_far: Trajectory, max_tokens: int) -> Completion:
        tokens = tokenizer.encode(script(so_far), add_special_tokens=False)[:max_tokens]
        return Completion(tokens, [0.0] * len(tokens), [0] * len(tokens), Finish.STOP)

    checked: Policy = policy
    await play(trajectory, checked, renderer, retriever, k, limits)
    return trajectory
