"""So many requests a second, and no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pace:
    """Hands out moments that are at least 1 / `per_second` seconds apart; 0: no limit.

    Args:
        sleep: waits until a moment has come.
        clock: seconds, as they pass.
    """

    def __init__(
        self,
        per_second: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gap_s = 1 / per_second if per_second else 0.0
        self._sleep, self._clock = sleep, clock
        self._next_s = 0.0

    async def wait(self) -> None:
        """Until one more request may be sent."""
        now = self._clock()
        mine = max(now, self._next_s)
        self._next_s = mine + self._gap_s
        if mine > now:
            await self._sleep(mine - now)
