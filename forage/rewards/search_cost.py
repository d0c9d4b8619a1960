"""A price on searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from forage.types import Scores, Trajectory


class SearchCost:
    """-price for each search that was run beyond the first `free` ones, charged to the turn that searched.

    Args:
        price: of one search.
        free: searches that cost nothing.
    """

    def __init__(self, *, price: Annotated[float, Meta(ge=0)] = 0.05, free: Annotated[int, Meta(ge=0)] = 0) -> None:
        self._price, self._free = price, free

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        return [self._score(trajectory) for trajectory in group]

    def _score(self, trajectory: Trajectory) -> Scores:
        searched = [number for number, turn in enumerate(trajectory.turns) if turn.results]
        turns = dict.fromkeys(searched[self._free :], -self._price)
        total = float(sum(turns.values()))
        return Scores(total, {"search_cost": total}, turns)
