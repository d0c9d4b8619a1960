"""The retriever of a run: what many episodes ask at once becomes one call."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from forage.errors import ConfigError, RetrieverError
from forage.interfaces import Index, Retriever
from forage.types import Passage

Outcome = list[Passage] | RetrieverError
Lookup = Callable[[Sequence[str], int], Any]  # a list of outcomes, or an awaitable of one
_Key = tuple[str, int]  # query, k


class Gather:
    """A `Retriever` over an index, another retriever, or a plain function `f(queries, k)`, sync or async.

    Searches made in one round of the event loop are asked together, in the order they came and each query once; a query
    that is already on its way is not sent again. No clock and no thread decides what goes together, so that an
    in-process index sees the same calls in every run. Where a call fails, each of its queries is asked again alone:
    only those that fail by themselves end as `RetrieverError`.

    Args:
        cache_size: how many (query, k) are remembered, the least recently used are forgotten; 0 for none. Failures are
            never remembered.
        timeout_s: seconds after which an asynchronous call counts as failed. A synchronous one can't be interrupted;
            one of a retriever with `bounds_itself = True` is not: its requests have timeouts, and take their turns.
    """

    def __init__(
        self, index: Index | Retriever | Lookup, *, cache_size: int = 100_000, timeout_s: float = 60.0
    ) -> None:
        self._lookup = as_lookup(index)
        # whether it answers at once, within the same round of the event loop
        self.in_process = bool(getattr(index, "in_process", hasattr(index, "lookup")))
        self._cache: OrderedDict[_Key, list[Passage]] = OrderedDict()
        self._cache_size = cache_size
        self._timeout_s = None if getattr(index, "bounds_itself", False) else timeout_s
        self._waiting: dict[_Key, list[asyncio.Future[Outcome | ConfigError]]] = {}
        self._fresh: list[_Key] = []  # of those that are waited for, the ones not sent yet
        self._round: asyncio.Task[None] | None = None  # sends them
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stats: dict[str, float] = defaultdict(float)

    async def search(self, queries: Sequence[str], k: int) -> list[Outcome]:
        """One outcome a query.

        Raises:
            ConfigError: the index can't serve this k.
        """
        self._stats["queries"] += len(queries)
        answers = [self._ask((query, k)) for query in queries]
        outcomes: list[Outcome] = []
        for answer in answers:
            outcome = await answer
            if isinstance(outcome, ConfigError):
                raise outcome
            outcomes.append(outcome if isinstance(outcome, RetrieverError) else list(outcome))
        return outcomes

    def take_stats(self) -> dict[str, float]:
        """Counts since the last call.

        Of the `queries` that episodes asked, `cache_hits` were remembered and `unique` were sent, in `calls` calls that
        took `seconds` (the sum of all, also where they overlap); `failures` of the sent ones failed.
        """
        stats, self._stats = self._stats, defaultdict(float)
        names = ("queries", "cache_hits", "unique", "calls", "failures", "seconds")
        return {name: stats[name] for name in names}

    def _ask(self, key: _Key) -> asyncio.Future[Outcome | ConfigError]:
        """The future outcome of one query. Everyone who asks has their own, so that one can be cancelled alone."""
        loop = self._current_loop()
        answer: asyncio.Future[Outcome | ConfigError] = loop.create_future()
        if key in self._cache:
            self._cache.move_to_end(key)
            self._stats["cache_hits"] += 1
            answer.set_result(self._cache[key])
        elif key in self._waiting:
            self._waiting[key].append(answer)
        else:
            self._waiting[key] = [answer]
            self._fresh.append(key)
            if len(self._fresh) == 1:  # a task starts in the next round, when all of this one have asked
                self._round = loop.create_task(self._send())
        return answer

    def _current_loop(self) -> asyncio.AbstractEventLoop:
        """The running loop. What an earlier one left unanswered (Ctrl-C) nobody waits for any more."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._waiting.clear()
            self._fresh.clear()
        return loop

    async def _send(self) -> None:
        fresh, self._fresh = self._fresh, []
        by_k: dict[int, list[str]] = defaultdict(list)
        for query, k in fresh:
            by_k[k].append(query)
        await asyncio.gather(*(self._resolve(queries, k) for k, queries in by_k.items()))

    async def _resolve(self, queries: list[str], k: int) -> None:
        """Ask for these queries, and again one by one where that fails."""
        try:
            outcomes: Sequence[Outcome | ConfigError] = await self._call(queries, k)
        except ConfigError as error:  # the same for every query, and for the user to mend
            outcomes = [error] * len(queries)
        except Exception as error:  # noqa: BLE001 - somebody else's search engine may raise anything
            if len(queries) > 1:
                await asyncio.gather(*(self._resolve([query], k) for query in queries))
                return
            outcomes = [self._failure(queries[0], error)]
        for query, outcome in zip(queries, outcomes, strict=True):
            self._deliver((query, k), outcome)

    async def _call(self, queries: list[str], k: int) -> list[Outcome]:
        self._stats["calls"] += 1
        started = time.perf_counter()
        try:
            outcomes = self._lookup(queries, k)
            if inspect.isawaitable(outcomes):
                async with asyncio.timeout(self._timeout_s):
                    outcomes = await outcomes
        finally:
            self._stats["seconds"] += time.perf_counter() - started
        return _checked(outcomes, len(queries))

    def _deliver(self, key: _Key, outcome: Outcome | ConfigError) -> None:
        self._stats["unique"] += 1
        if isinstance(outcome, list):
            self._remember(key, outcome)
        else:
            self._stats["failures"] += 1
        for answer in self._waiting.pop(key):
            if not answer.done():  # its episode may have been cancelled
                answer.set_result(outcome)

    def _remember(self, key: _Key, passages: list[Passage]) -> None:
        if self._cache_size:
            self._cache[key] = passages
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)

    def _failure(self, query: str, error: Exception) -> RetrieverError:
        if isinstance(error, RetrieverError):
            return error
        late = isinstance(error, TimeoutError) and self._timeout_s is not None
        what = f"no answer in {self._timeout_s:g} s" if late else repr(error)
        failure = RetrieverError(f"the search for {query!r} failed: {what}")
        failure.__cause__ = error
        return failure


def as_lookup(index: Index | Retriever | Lookup) -> Lookup:
    """The function to call: `lookup` of an index, `search` of a retriever, or the function itself.

    Raises:
        ConfigError: it is none of these.
    """
    for name in ("lookup", "search"):
        if method := getattr(index, name, None):
            return method  # type: ignore[no-any-return]
    if callable(index):
        return index
    raise ConfigError(f"{index!r} is no retriever: it needs `search(queries, k)` or `lookup(queries, k)`")


def _checked(outcomes: Any, asked: int) -> list[Outcome]:
    """What a user's own retriever returned, if it is one list of passages (or one RetrieverError) a query."""
    if not isinstance(outcomes, list | tuple) or len(outcomes) != asked:
        raise RetrieverError(
            f"a retriever must return one list of passages for each of the {asked} queries, not {outcomes!r:.200}"
        )
    checked: list[Outcome] = []
    for outcome in outcomes:
        if isinstance(outcome, RetrieverError):
            checked.append(outcome)
        elif isinstance(outcome, list | tuple) and all(isinstance(passage, Passage) for passage in outcome):
            checked.append(list(outcome))
        else:
            raise RetrieverError(f"a retriever must return forage.types.Passage objects, not {outcome!r:.200}")
    return checked
