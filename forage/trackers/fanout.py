"""One tracker that is many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, runtime_checkable

from forage.interfaces import Tracker

Progress = Callable[[int, int], None]
"""(done, of how many)"""


@runtime_checkable
class ShowsProgress(Protocol):
    """A tracker that can show how far something inside a step has come."""

    def progress(self, title: str) -> Progress: ...


class Fanout:
    """Passes everything on to each tracker. `close` closes all of them, also where one fails."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = tuple(trackers)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.log(step, metrics)

    def progress(self, title: str) -> Progress:
        """Show how far something has come, on every tracker that can."""
        shown = [tracker.progress(title) for tracker in self._trackers if isinstance(tracker, ShowsProgress)]

        def advance(done: int, total: int) -> None:
            for show in shown:
                show(done, total)

        return advance

    def close(self) -> None:
        with ExitStack() as stack:
            for tracker in reversed(self._trackers):
                stack.callback(tracker.close)
