"""A penalty on asking the same again."""

from __future__ import annotations

from forage.text import normalize_answer
from forage.types import Scores, Search, Trajectory


def repeat(trajectory: Trajectory) -> Scores:
    """-1 for each query that was searched for earlier in the episode, both normalised; charged to its turn."""
    asked: set[str] = set()
    turns: dict[int, float] = {}
    for number, turn in enumerate(trajectory.turns):
        if not isinstance(turn.action, Search) or not turn.results:
            continue
        for query in map(normalize_answer, turn.action.queries):
            if query in asked:
                turns[number] = turns.get(number, 0.0) - 1
            asked.add(query)
    total = float(sum(turns.values()))
    return Scores(total, {"repeat": total}, turns)
