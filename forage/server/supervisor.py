"""Keeps the workers alive, and ends them."""

from __future__ import annotations

import multiprocessing
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from forage.errors import ServiceError
from forage.server.board import Board
from forage.server.log import Log
from forage.server.worker import CANNOT_OPEN, Work, work

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
STABLE_S = 10.0
"""A worker that lived this long is started again at once."""


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Pipe
    started: float
    falls: int  # in a row, each soon after its start
    again_at: float = 0.0  # when to start it again, where it is dead


class Supervisor:
    """Starts processes that share one socket and one index on disk, and starts them again where they die.

    Args:
        told: what every worker is told; its board is made here.
        listening: a socket that listens.
        log: where events go.
    """

    def __init__(self, told: Work, listening: socket.socket, log: Log) -> None:
        self._told, self._listening, self._log = told, listening, log
        self._context = multiprocessing.get_context("spawn")  # threads of numpy and faiss don't survive a fork
        self._workers: list[_Worker] = []
        self._stopping = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then requests in flight are finished.

        Raises:
            ServiceError: the index can't be opened at the start.
        """
        with tempfile.TemporaryDirectory(prefix="forage-serve-") as folder, self._signals():
            self._told = replace(self._told, board=Path(folder) / "board")
            Board.create(self._told.board, self._told.workers)
            counts = Board(self._told.board, workers=self._told.workers)
            try:
                self._workers = [self._start(row, again=False) for row in range(self._told.workers)]
                while not self._stopping:
                    self._wait()
                    for row, worker in enumerate(self._workers):
                        self._look_at(row, worker, served=counts.total("was_ready") > 0)
            finally:
                self._stop()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _asked(self, number: int, frame: Any) -> None:
        del frame
        self._stopping = True
        self._log("stopping", signal=signal.Signals(number).name)

    def _wait(self) -> None:
        """Until a worker dies, or a moment has passed."""
        alive = [worker.process.sentinel for worker in self._workers if not worker.again_at]
        wait(alive, timeout=0.2) if alive else time.sleep(0.2)

    def _start(self, row: int, *, again: bool, falls: int = 0) -> _Worker:
        ours, theirs = self._context.Pipe()
        name = f"forage-serve-{row}"
        process = self._context.Process(target=work, args=(self._told, row, self._listening, theirs, again), name=name)
        process.start()
        theirs.close()
        self._log("worker_started", worker=row, child=process.pid)
        return _Worker(process, ours, time.monotonic(), falls)

    def _look_at(self, row: int, worker: _Worker, *, served: bool) -> None:
        if worker.again_at:
            if time.monotonic() >= worker.again_at:
                self._workers[row] = self._start(row, again=True, falls=worker.falls)
        elif not worker.process.is_alive() and not self._stopping:
            self._mourn(row, worker, served=served)

    def _mourn(self, row: int, worker: _Worker, *, served: bool) -> None:
        """Say that a worker died, and when it comes again.

        Raises:
            ServiceError: nobody ever answered, and this one could not open the index.
        """
        code = worker.process.exitcode
        self._log("worker_died", worker=row, child=worker.process.pid, exit=code)
        if code == CANNOT_OPEN and not served:
            raise ServiceError(worker.pipe.recv() if worker.pipe.poll() else "a worker could not open the index")
        worker.pipe.close()
        worker.falls = worker.falls + 1 if time.monotonic() - worker.started < STABLE_S else 0
        pause = min(FIRST_PAUSE_S * 2**worker.falls, LONGEST_PAUSE_S) if worker.falls else 0.0
        worker.again_at = time.monotonic() + pause

    def _stop(self) -> None:
        """End all workers: politely, and after the time of grace not so."""
        alive = [worker.process for worker in self._workers if worker.process.is_alive()]
        for process in alive:
            process.terminate()
        ends = time.monotonic() + self._told.limits.grace_s + 2
        for process in alive:
            process.join(max(0.0, ends - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._log("stopped")
