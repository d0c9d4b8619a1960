"""The index behind the service: opened, asked, looked after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forage.interfaces import Index
from forage.server.board import Board
from forage.server.desk import Desk
from forage.server.log import Log
from forage.server.refusal import SOON, Refusal

LOOK_EVERY_S = 1.0
OPEN_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Opened:
    """An index that is open.

    Args:
        index: answers queries.
        info: describes it, for `GET /v1/info`; JSON.
        file: the file that describes it on disk: where it changes or goes, that is said.
    """

    index: Index
    info: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None


class Keeper:
    """Opens an index in a thread, and holds the `Desk` before it.

    Args:
        open_index: opens it.
        board: told when it is open, and when it is no longer on disk.
        log: where events go.
        max_queue: how many queries may wait.
        on_failure: told the message where it can't be opened; without it, that is tried again for good.
    """

    def __init__(
        self,
        open_index: Callable[[], Opened],
        board: Board,
        log: Log,
        *,
        max_queue: int,
        on_failure: Callable[[str], None] | None,
    ) -> None:
        self._open, self._board, self._log = open_index, board, log
        self._max_queue, self._on_failure = max_queue, on_failure
        self._open_now: tuple[Opened, Desk] | None = None
        self._state = "the index is being opened"

    @property
    def desk(self) -> Desk:
        """Takes queries.

        Raises:
            Refusal: the index is not open (503); says why.
        """
        return self._both()[1]

    @property
    def info(self) -> dict[str, Any]:
        """What the index is.

        Raises:
            Refusal: it is not open (503); says why.
        """
        opened, _ = self._both()
        count = {"passages": len(opened.index)} if isinstance(opened.index, Sized) else {}
        return count | opened.info

    async def keep(self) -> None:
        """Open the index, then look after it."""
        started = time.perf_counter()
        while not (opened := await self._try_to_open()):
            if self._on_failure:
                return
            await asyncio.sleep(OPEN_AGAIN_S)
        self._open_now = opened, Desk(opened.index, self._board, max_queue=self._max_queue)
        self._board.ready()
        self._log("ready", seconds=round(time.perf_counter() - started, 3))
        await self._look_after(opened.file)

    def close(self) -> None:
        """Take no more queries."""
        self._state = "the service is being stopped"
        self._board.set("ready", 0.0)
        if self._open_now:
            self._open_now[1].close()
        self._open_now = None

    def _both(self) -> tuple[Opened, Desk]:
        if self._open_now is None:
            raise Refusal(503, "not_ready", self._state, headers=SOON)
        return self._open_now

    async def _try_to_open(self) -> Opened | None:
        try:
            return await asyncio.to_thread(self._open)
        except Exception as error:  # noqa: BLE001 - whatever a broken index makes a library raise
            self._state = f"the index can't be opened: {type(error).__name__}: {error}"
            self._log("index_failed", message=self._state)
            if self._on_failure:
                self._on_failure(str(error))
            return None

    async def _look_after(self, file: Path | None) -> None:
        """Say once when the index on disk is no longer the one that is open. What is open stays right."""
        before = _identity(file)
        while file:
            await asyncio.sleep(LOOK_EVERY_S)
            now = _identity(file)
            if now != before:
                self._board.set("index_missing", 1.0)
                self._log("index_changed", file=str(file), now="another" if now else "missing")
                return


def _identity(file: Path | None) -> tuple[int, int] | None:
    try:
        status = file.stat() if file else None
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns) if status else None
