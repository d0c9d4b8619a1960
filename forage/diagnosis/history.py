"""A run's metrics as columns with rolling means, which rules look at."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

EARLIEST = 2  # the first rolling mean that counts is that of three values
CUT_OFF = "cut off"  # a column of our own: episodes that ended without an answer


@dataclass(slots=True)
class Column:
    """One metric: its values, and at each the mean of the last `window` of them (fewer at the beginning)."""

    window: int
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    highest: int = EARLIEST  # positions of the highest and the lowest mean
    lowest: int = EARLIEST

    def add(self, step: int, value: float) -> None:
        """Append a step's value."""
        self.steps.append(step)
        self.values.append(value)
        last = self.values[-self.window :]
        self.means.append(sum(last) / len(last))
        if len(self.means) > EARLIEST:
            here = len(self.means) - 1
            self.highest = here if self.means[here] > self.means[self.highest] else self.highest
            self.lowest = here if self.means[here] < self.means[self.lowest] else self.lowest

    @property
    def now(self) -> float:
        """The mean of the last `window` values."""
        return self.means[-1]

    @property
    def high(self) -> float:
        """The highest mean so far."""
        return self.means[self.highest]

    @property
    def low(self) -> float:
        """The lowest mean so far."""
        return self.means[self.lowest]

    def at(self, step: int) -> float | None:
        """The mean as it stood at a step; None before the first value."""
        known = bisect_right(self.steps, step)
        return self.means[known - 1] if known else None

    def noise(self, position: int) -> float:
        """The standard error of the difference between the mean now and the one at a position.

        Estimated from what follows what, so that a trend counts for little, and without the largest jump, so that a
        collapse doesn't hide itself.
        """
        jumps = sorted((b - a) * (b - a) for a, b in pairwise(self.values))[:-1]
        variance = sum(jumps) / (2 * max(len(jumps), 1))
        return math.sqrt(variance * (1 / min(position + 1, self.window) + 1 / min(len(self.values), self.window)))

    def left(self, level: float, above: bool = True) -> int:
        """The first step of the current window, or an earlier one: after the last mean that was beyond `level`."""
        start = self.steps[-self.window :][0]
        good = [step for step, mean in zip(self.steps, self.means, strict=True) if (mean >= level) == above]
        return min(start, good[-1] + 1) if good else start


class History:
    """The rows of a run so far, as columns.

    Args:
        window: steps of a rolling mean.
        max_searches: searches that an episode may run; 0 where that is not known.
    """

    def __init__(self, window: int, max_searches: int = 0) -> None:
        self.max_searches = max_searches
        self.step = 0
        self._window = window
        self._columns: dict[str, Column] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Take up a row of metrics; values that are no finite numbers are gaps."""
        self.step = row["step"]
        numbers = {name: float(value) for name, value in row.items() if _is_number(value)}
        if "stop/no_answer" in numbers:
            numbers[CUT_OFF] = numbers["stop/no_answer"] + numbers.get("stop/context_full", 0.0)
        for name, value in numbers.items():
            self._columns.setdefault(name, Column(self._window)).add(self.step, value)

    def column(self, name: str) -> Column | None:
        """A metric that has a whole window of values, some of them recent."""
        column = self._columns.get(name)
        if (
            column is None
            or len(column.values) <= max(self._window - 1, EARLIEST)
            or column.steps[-1] <= self.step - self._window
        ):
            return None
        return column

    def now(self, name: str, otherwise: float) -> float:
        """The mean of a metric's last values, where there are enough."""
        column = self.column(name)
        return column.now if column else otherwise


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
