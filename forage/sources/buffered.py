"""Groups played some updates ago."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from forage.interfaces import Source
from forage.sources.stored import read_harvest, write_harvest
from forage.types import Harvest


class BufferedSource:
    """Hands out groups that were played `staleness` optimizer updates ago, as asynchronous training does.

    Each step plays one harvest with the newest weights and hands out the oldest of the queue; the first step plays
    `staleness` more, to fill it. Tokens keep the logprobs and versions that they were sampled with.

    Args:
        fresh: plays the harvests; the one that step n learns from is its n-th.
        staleness: harvests in the queue.
    """

    def __init__(self, fresh: Source, staleness: int) -> None:
        self._fresh, self._staleness = fresh, staleness
        self._queue: dict[int, Harvest] = {}  # step that learns from it -> harvest; that of the last step included

    async def take(self, step: int) -> Harvest:
        """The harvest of a step; its seconds are those of what was played now."""
        self._queue = {number: harvest for number, harvest in self._queue.items() if number >= step}
        seconds = tail_seconds = 0.0
        for number in range(step, step + self._staleness + 1):
            if number not in self._queue:
                played = self._queue[number] = await self._fresh.take(number)
                seconds, tail_seconds = seconds + played.seconds, tail_seconds + played.tail_seconds
        return replace(self._queue[step], seconds=seconds, tail_seconds=tail_seconds)

    def save(self, folder: Path, step: int) -> None:
        """Write the queue as it stood after `step`, and where the harvest behind it begins."""
        last = step
        for number in range(step + 1, step + self._staleness + 1):
            if number in self._queue:
                write_harvest(_path(folder, number), self._queue[number])
                last = number
        self._fresh.save(folder, last)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, to the bit.

        Raises:
            CheckpointError: a file is damaged.
        """
        self._queue = {int(path.name[8:14]): read_harvest(path) for path in sorted(folder.glob("harvest-*"))}
        self._fresh.load(folder)


def _path(folder: Path, number: int) -> Path:
    return folder / f"harvest-{number:06d}.json.zst"
