"""A thread of its own for long computing, so that the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from forage.learners.precision import count_denormals_as_0

T = TypeVar("T")


class Aside:
    """Runs one piece of work after another in a thread, which counts denormal numbers as 0."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name, initializer=count_denormals_as_0)

    async def __call__(self, work: Callable[[], T]) -> T:
        """What `work` returns. A cancelled caller still waits for its end: weights are never left half updated while
        someone saves them."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise
