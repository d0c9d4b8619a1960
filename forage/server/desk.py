"""Queries of all requests, on their way to the index."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from forage.errors import RetrieverError
from forage.interfaces import Index
from forage.server.board import Board
from forage.server.refusal import SOON, Refusal
from forage.types import Passage

Outcome = list[Passage] | RetrieverError
_Key = tuple[str, int]  # query, k
BATCH = 8
"""Queries a call for an index that gains nothing from more: enough to pay for the way to the thread and back."""


class _Order:
    """What one request waits for."""

    __slots__ = ("done", "missing", "outcomes")

    def __init__(self, size: int, done: asyncio.Future[None]) -> None:
        self.outcomes: list[Outcome | None] = [None] * size
        self.missing = size
        self.done = done

    def take(self, place: int, outcome: Outcome) -> None:
        self.outcomes[place] = outcome
        self.missing -= 1
        if not self.missing and not self.done.done():  # the request may have timed out
            self.done.set_result(None)


class Desk:
    """Asks an index in a thread of its own, one call at a time, so that the loop stays free.

    What queues up during a call goes into the next one; nothing waits for company. An index says with `batch_size` how
    many queries it likes in a call (an encoder gains from 32 or so, BM25 from none). A query that many ask for at the
    same time is asked once. Where a call fails, each of its queries is asked alone, so that only those fail that fail
    by themselves.
    """

    def __init__(self, index: Index, board: Board, *, max_queue: int) -> None:
        self._index, self._board, self._max_queue = index, board, max_queue
        self._batch = int(getattr(index, "batch_size", BATCH))
        self._passages = len(index) if isinstance(index, Sized) else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forage-index")
        self._waiting: dict[_Key, list[tuple[_Order, int]]] = {}
        self._queue: dict[_Key, None] = {}  # of them, those that were not taken yet, in order
        self._pump: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether nothing more is taken."""
        return len(self._queue) >= self._max_queue

    async def ask(self, queries: Sequence[str], k: int) -> list[Outcome]:
        """One outcome a query. An index that has fewer passages than k gives all it has.

        Raises:
            Refusal: too many queries wait (429).
        """
        if not queries:
            return []
        k = k if self._passages is None else min(k, self._passages)
        if len(self._queue) + len(queries) > self._max_queue:
            what = f"{len(self._queue)} queries wait; this service lets at most {self._max_queue} wait (max_queue)"
            raise Refusal(429, "max_queue", what, limit=self._max_queue, headers=SOON)
        loop = asyncio.get_running_loop()
        order = _Order(len(queries), loop.create_future())
        for place, query in enumerate(queries):
            self._enter((query, k), order, place)
        self._board.set("queue", len(self._queue))
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._run())
        await order.done
        return order.outcomes  # type: ignore[return-value]

    def close(self) -> None:
        """Let the thread end after the call it is in."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _enter(self, key: _Key, order: _Order, place: int) -> None:
        if key in self._waiting:
            self._waiting[key].append((order, place))
        else:
            self._waiting[key] = [(order, place)]
            self._queue[key] = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            keys = self._take()
            if not keys:
                continue
            queries, k = [query for query, _ in keys], keys[0][1]
            outcomes, seconds = await loop.run_in_executor(self._thread, self._timed, queries, k)
            self._record(outcomes, seconds)
            for key, outcome in zip(keys, outcomes, strict=True):
                for order, place in self._waiting.pop(key):
                    order.take(place, outcome)

    def _take(self) -> list[_Key]:
        """The next call's keys: the first that anyone still waits for, and those after it with its k."""
        taken: list[_Key] = []
        for key in list(islice(self._queue, 4 * self._batch)):
            if all(order.done.done() for order, _ in self._waiting[key]):  # they gave up
                del self._queue[key], self._waiting[key]
            elif not taken or key[1] == taken[0][1]:
                del self._queue[key]
                taken.append(key)
            if len(taken) == self._batch:
                break
        self._board.set("queue", len(self._queue))
        return taken

    def _record(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        self._board.add("index_calls_total")
        self._board.add("index_queries_total", len(outcomes))
        self._board.add("index_seconds_total", seconds)
        self._board.add("index_failures_total", sum(isinstance(one, RetrieverError) for one in outcomes))

    def _timed(self, queries: list[str], k: int) -> tuple[list[Outcome], float]:
        started = time.perf_counter()
        return self._lookup(queries, k), time.perf_counter() - started

    def _lookup(self, queries: list[str], k: int) -> list[Outcome]:
        try:
            found = self._index.lookup(queries, k)
            if len(found) != len(queries):
                raise RetrieverError(f"the index gave {len(found)} results for {len(queries)} queries")
            return [list(passages)[:k] for passages in found]
        except Exception as error:  # noqa: BLE001 - somebody else's index may raise anything
            if len(queries) > 1:
                return [self._lookup([query], k)[0] for query in queries]
            named = error if isinstance(error, RetrieverError) else RetrieverError(f"{type(error).__name__}: {error}")
            return [named]
