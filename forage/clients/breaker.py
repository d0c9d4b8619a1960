"""When a server that fails is left alone."""

from __future__ import annotations

import time
from collections.abc import Callable

_LOOK_AGAIN_S = 0.1  # how soon others ask what came of a trial request


class Breaker:
    """Lets requests through until several in a row failed; then, after a pause, one on trial, which decides.

    Args:
        failures: how many in a row open it.
        pause_s: seconds that it stays open.
        clock: seconds, from anywhere.
    """

    def __init__(self, failures: int, pause_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._pause_s, self._clock = failures, pause_s, clock
        self._failed = 0
        self._until = 0.0
        self._on_trial = False

    @property
    def wait_s(self) -> float:
        """Seconds until it is worth asking again whether a request may go; 0: one may go now."""
        if self._failed < self._limit:
            return 0.0
        if self._on_trial:
            return _LOOK_AGAIN_S
        return max(0.0, self._until - self._clock())

    def enter(self) -> None:
        """A request goes. Its end must be told: `succeeded`, `failed` or `left`."""
        self._on_trial = self._failed >= self._limit

    def succeeded(self) -> None:
        """The server is well."""
        self._failed, self._on_trial = 0, False

    def failed(self) -> None:
        """The request failed."""
        self._failed += 1
        self._on_trial = False
        if self._failed >= self._limit:
            self._until = self._clock() + self._pause_s

    def left(self) -> None:
        """Nobody waited for the request's end."""
        self._on_trial = False
