"""Groups played with the newest weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from forage.errors import CheckpointError, TrainingError
from forage.sources.order import Order
from forage.sources.player import Player
from forage.types import Harvest, Question

STATE = "source.json"


class FreshSource:
    """Plays every group with the newest weights, when it is asked for.

    Questions come in an order that the run's seed fixes; a step takes up where the one before it ended.

    Args:
        questions: to be asked, again and again.
        player: plays and rewards them.
        batch_questions: groups of a step.
        seed: of the order.
        max_failure_rate: share of a step's searches that may fail.
        max_refills: rounds in which groups without signal are replaced by other questions, until `batch_questions`
            with signal are there (dynamic sampling; DAPO, arXiv 2503.14476, section 3.2); None: such groups stay.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        player: Player,
        *,
        batch_questions: int,
        seed: int,
        max_failure_rate: float,
        max_refills: int | None = None,
    ) -> None:
        self._order, self._player, self._batch = Order(questions, seed), player, batch_questions
        self._max_failure_rate, self._max_refills = max_failure_rate, max_refills
        self._starts = {1: 0}  # step -> position of its first question: of the step just played, and of the next

    async def take(self, step: int) -> Harvest:
        """Play and reward the groups of a step.

        Raises:
            ValueError: neither the next step nor the one just played.
            TrainingError: more searches failed than the run allows, or nothing is left to learn from.
        """
        if step not in self._starts:
            raise ValueError(f"step {step} was asked for, but only {sorted(self._starts)} can be played")
        first = self._starts[step]
        harvest = await self._round(step, first, 0, self._batch)
        if self._max_refills is not None:
            await self._refill(harvest, step, first, self._max_refills)
        harvest.missing = self._batch - len(harvest.groups)
        self._check_failures(harvest)
        _check_left(harvest)
        self._starts = {step: first, step + 1: first + harvest.played}
        return harvest

    def save(self, folder: Path, step: int) -> None:
        """Write where step + 1 begins."""
        (folder / STATE).write_text(json.dumps({"step": step, "position": self._starts[step + 1]}))

    def load(self, folder: Path) -> None:
        """Go on behind the step of which `save` wrote.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        try:
            state = json.loads((folder / STATE).read_text())
            self._starts = {state["step"] + 1: state["position"]}
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder / STATE}: the position in the data can't be read ({error})") from error

    async def _round(self, step: int, first: int, played: int, count: int) -> Harvest:
        """The next `count` questions of a step that began at position `first`."""
        positions = range(first + played, first + played + count)
        return await self._player.play([self._order[position] for position in positions], step=step, first=played)

    async def _refill(self, harvest: Harvest, step: int, first: int, rounds: int) -> None:
        """Play other questions for what has no signal, as many as are missing each time."""
        harvest.replace_equal()
        while (missing := self._batch - len(harvest.groups)) and harvest.refills < rounds:
            further = await self._round(step, first, harvest.played, missing)
            further.replace_equal()
            harvest.add(further)

    def _check_failures(self, harvest: Harvest) -> None:
        failed, searches = harvest.failed, harvest.searches
        if failed and len(failed) > self._max_failure_rate * searches:
            raise TrainingError(
                f"{len(failed)} of {searches} searches failed (search.max_failure_rate = "
                f"{self._max_failure_rate}); the last one said: {failed[-1].failure}"
            )


def _check_left(harvest: Harvest) -> None:
    """Refuse a step of which no episode is left; one without signal moves momentum all the same."""
    if harvest.groups or harvest.replaced:
        return
    stops = Counter(str(t.stop) for group in harvest.left_out for t in group.trajectories)
    ends = [f"{count} episodes ended as {stop}" for stop, count in sorted(stops.items())]
    if harvest.failed:
        ends.append(f"{len(harvest.failed)} episodes ended by a failed search ({harvest.failed[-1].failure})")
    raise TrainingError(
        f"nothing is left to learn from: {', '.join(ends)}. Look at algorithm.leave_out, search.max_failure_rate and "
        "the limits of [rollout]; the last whole step is saved, and another run can start from it (--init-from)"
    )
