"""What the service counts, in memory that all its workers share; written as Prometheus reads it.

Each worker writes a row of its own and any of them reads all, so that there are no locks, every worker answers
`GET /metrics` for the whole service, and a counter goes on where a worker that died left it.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

PATHS = ("/retrieve", "/v1/search", "/v1/info", "/health", "/ready", "/metrics", "/openapi.json", "other")
TIMED = PATHS[:2]
STATUSES = (200, 400, 401, 404, 405, 408, 413, 422, 429, 500, 503, 504)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

COUNTERS = {
    "queries_total": "Queries asked.",
    "cache_hits_total": "Queries answered from the cache.",
    "cache_misses_total": "Queries that were not in the cache.",
    "index_calls_total": "Calls of the index.",
    "index_queries_total": "Queries that the index was asked.",
    "index_seconds_total": "Seconds in calls of the index.",
    "index_failures_total": "Queries that the index failed at.",
    "worker_starts_total": "Times that a worker was started.",
}
GAUGES = {
    "queue": "Queries that wait for the index.",
    "in_flight": "Requests that are being answered.",
    "cache_bytes": "Bytes of remembered answers.",
    "ready": "Workers that answer.",
    "index_missing": "Workers whose index is no longer on disk as it was opened.",
}
_HIDDEN = ("was_ready",)  # whether the worker was ready once


def _cells() -> Iterator[str]:
    yield from (*COUNTERS, *GAUGES, *_HIDDEN)
    yield from (f"{path} {status}" for path in PATHS for status in STATUSES)
    for path in TIMED:
        yield from (f"{path} le {place}" for place in range(len(SECONDS) + 1))
        yield f"{path} sum"


_CELL = {name: place for place, name in enumerate(_cells())}


class Board:
    """One worker's row of counters, and a view of everybody's.

    Args:
        file: shared by all workers (`Board.create` makes it); None: there is one worker, and nothing is shared.
        row: this worker's number, from 0.
    """

    def __init__(self, file: Path | None = None, *, workers: int = 1, row: int = 0) -> None:
        size = workers * len(_CELL) * 8
        if file is None:
            self._map = mmap.mmap(-1, size)
        else:
            with file.open("r+b") as opened:
                self._map = mmap.mmap(opened.fileno(), size)
        self._all = memoryview(self._map).cast("d")
        self._row = self._all[row * len(_CELL) : (row + 1) * len(_CELL)]
        self._workers = workers

    @staticmethod
    def create(file: Path, workers: int) -> None:
        """Make the file for that many workers, all counts 0."""
        file.write_bytes(bytes(workers * len(_CELL) * 8))

    def add(self, name: str, amount: float = 1.0) -> None:
        """Count."""
        self._row[_CELL[name]] += amount

    def set(self, name: str, value: float) -> None:
        """Say what is now."""
        self._row[_CELL[name]] = value

    def start(self) -> None:
        """Forget what a worker that died said of its now."""
        for name in GAUGES:
            self.set(name, 0.0)
        self.add("worker_starts_total")

    def ready(self) -> None:
        """This worker answers from now on."""
        self.set("ready", 1.0)
        self.set("was_ready", 1.0)

    def all_were_ready(self) -> bool:
        """Whether every worker was ready once."""
        return self.total("was_ready") == self._workers

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        path = path if path in PATHS else "other"
        self.add(f"{path} {status if status in STATUSES else 500}")
        if path in TIMED:
            self.add(f"{path} le {bisect_left(SECONDS, seconds)}")
            self.add(f"{path} sum", seconds)

    def total(self, name: str) -> float:
        """The sum over all workers."""
        return float(sum(self._all[_CELL[name] :: len(_CELL)]))

    def prometheus(self) -> str:
        """All of it, in Prometheus' text format."""
        return "\n".join([*self._simple(), *self._requests(), *self._histograms(), ""])

    def _simple(self) -> Iterator[str]:
        for kind, names in (("counter", COUNTERS), ("gauge", GAUGES)):
            for name, words in names.items():
                yield from _head(f"forage_{name}", kind, words)
                yield f"forage_{name} {self.total(name):.15g}"

    def _requests(self) -> Iterator[str]:
        yield from _head("forage_requests_total", "counter", "Requests by path and status.")
        for path in PATHS:
            for status in STATUSES:
                if count := self.total(f"{path} {status}"):
                    yield f'forage_requests_total{{path="{path}",status="{status}"}} {count:.15g}'

    def _histograms(self) -> Iterator[str]:
        name = "forage_request_seconds"
        yield from _head(name, "histogram", "Seconds from a request's first byte to its answer's last.")
        for path in TIMED:
            counts = [self.total(f"{path} le {place}") for place in range(len(SECONDS) + 1)]
            for bound, count in zip((*SECONDS, "+Inf"), accumulate(counts), strict=True):
                yield f'{name}_bucket{{path="{path}",le="{bound}"}} {count:.15g}'
            yield f'{name}_sum{{path="{path}"}} {self.total(f"{path} sum"):.9g}'
            yield f'{name}_count{{path="{path}"}} {sum(counts):.15g}'


def _head(name: str, kind: str, words: str) -> Iterator[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"
