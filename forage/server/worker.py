"""One process of the service."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from forage.server.app import Service
from forage.server.board import Board
from forage.server.keeper import Opened
from forage.server.limits import LIMITS, Limits
from forage.server.log import Log, LogHandler

CANNOT_OPEN = 3
"""Exit code of a worker that can't open the index."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every worker is told; it travels to another process.

    Args:
        open_index: a function of a module, or a `functools.partial` of one.
        limits: of each worker.
        token: that clients show; empty: none.
        log_requests: whether every request is logged.
        workers: how many there are.
        board: file of the shared counters; the supervisor makes it.
    """

    open_index: Callable[[], Opened]
    limits: Limits = LIMITS
    token: str = ""
    log_requests: bool = False
    workers: int = 1
    board: Path = Path()


def work(work: Work, row: int, listening: socket.socket, parent: Pipe, again: bool) -> None:
    """Serve until told to stop, or until the parent is gone.

    Args:
        work: what every worker is told.
        row: this worker's number.
        listening: the socket that all workers accept from.
        parent: told why, where the index can't be opened; its end is the parent's.
        again: whether a worker died in this place. Then the index is opened before anything is accepted, because the
            others go on; and one that can't be opened is tried again while requests get a 503 that says so.
    """
    import uvicorn

    from forage.server.connection import patient

    log = Log()
    opened = _opened_early(work.open_index, log) if again else None
    failed: list[str] = []

    def fail(message: str) -> None:
        failed.append(message)
        server.should_exit = True

    service = Service(
        (lambda: opened) if opened else work.open_index,
        limits=work.limits,
        token=work.token,
        board=Board(work.board, workers=work.workers, row=row),
        log=log,
        log_requests=work.log_requests,
        on_failure=None if again else fail,
    )
    logging.getLogger("uvicorn.error").addHandler(LogHandler(log))
    server = uvicorn.Server(
        uvicorn.Config(
            service,
            http=patient(work.limits.read_s),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=work.limits.max_connections,
            timeout_keep_alive=max(1, round(work.limits.keep_alive_s)),
            timeout_graceful_shutdown=max(1, round(work.limits.grace_s)),
        )
    )
    threading.Thread(target=_end_with, args=(parent, server), daemon=True).start()
    server.run(sockets=[listening])
    if failed:
        parent.send(failed[0])
        raise SystemExit(CANNOT_OPEN)


def _opened_early(open_index: Callable[[], Opened], log: Log) -> Opened | None:
    try:
        return open_index()
    except Exception as error:  # noqa: BLE001 - whatever a broken index makes a library raise
        log("index_failed", message=f"{type(error).__name__}: {error}")
        return None


def _end_with(parent: Pipe, server: object) -> None:
    """Stop the server when the parent is gone, however it went."""
    try:
        parent.recv()
    except (EOFError, OSError):
        server.should_exit = True  # type: ignore[attr-defined]
