"""What HTTP adds to a search: CPU milliseconds a query, of `forage serve`'s worker and of the client together.

The index behind the service answers at once with passages that were made before, so that all CPU time is HTTP's; what
the same queries cost without HTTP is measured in turns and taken off. The service runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from common import machine, options, show

from forage.clients.pool import Pool
from forage.retrievers.gather import as_lookup
from forage.retrievers.http import HttpRetriever
from forage.types import Passage

TEXT = "It is a text of about as many words as a passage of Wikipedia has when it is cut at a hundred of them. " * 4


class Ready:
    """An index that has its answer ready: three passages, told apart by the query."""

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        return [
            [Passage(f"{query}-{rank}", "A title", TEXT, 1.0 / (1 + rank)) for rank in range(k)] for query in queries
        ]


def serve(listening: socket.socket) -> None:
    """The service as a worker of `forage serve` runs it."""
    import uvicorn

    from forage.server.app import Service
    from forage.server.connection import Connection
    from forage.server.keeper import Opened

    settings: dict[str, Any] = {"http": Connection, "ws": "none", "lifespan": "on", "log_config": None}
    config = uvicorn.Config(Service(lambda: Opened(Ready())), access_log=False, server_header=False, **settings)
    uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def serving() -> Iterator[tuple[str, int]]:
    """(URL, process id) of a service."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(listening,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        assert process.pid
        yield url, process.pid
    finally:
        process.terminate()
        process.join()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, all its threads (Linux: the clock whose number is made of the pid)."""
    return time.clock_gettime((~pid << 3) | 2)


class Meter:
    """Runs work and says what it took, per query, here and in the service."""

    def __init__(self, pid: int) -> None:
        self._pid, self._number = pid, 0

    def fresh(self, count: int) -> list[str]:
        """Queries that nobody has asked."""
        self._number += count
        return [f"which of the places number {self._number - one} is it" for one in range(count)]

    async def __call__(self, work: Coroutine[Any, Any, None], queries: int) -> dict[str, float]:
        before = time.process_time(), cpu_s(self._pid), time.perf_counter()
        await work
        client = 1000 * (time.process_time() - before[0]) / queries
        server = 1000 * (cpu_s(self._pid) - before[1]) / queries
        rate = queries / (time.perf_counter() - before[2])
        return {"client_ms": client, "server_ms": server, "both_ms": client + server, "queries_per_s": rate}


async def clients(ask: Callable[[list[str]], Any], queries: list[str], batch: int, count: int) -> None:
    """`count` clients that ask one batch after another until none is left."""
    batches = iter([queries[start : start + batch] for start in range(0, len(queries), batch)])

    async def client() -> None:
        for one in batches:
            await ask(one)

    await asyncio.gather(*(client() for _ in range(count)))


async def measure(url: str, pid: int, args: Any) -> dict[str, list[dict[str, float]]]:
    """Every case in every round."""
    found: dict[str, list[dict[str, float]]] = {}
    measured = cases(url, Meter(pid), args)
    for turn in range(args.rounds + 1):
        for name, case in measured.items():
            cost = await case()
            if turn:
                found.setdefault(name, []).append(cost)
    return found


def cases(url: str, meter: Meter, args: Any) -> dict[str, Callable[[], Coroutine[Any, Any, dict[str, float]]]]:
    """What is measured, by name."""
    lookup = as_lookup(Ready())
    pool = Pool(
        [url], headers={}, attempt_s=20, deadline_s=50, retries=0, connections=64, hedge=0, breaker_failures=5,
        breaker_pause_s=1,
    )  # fmt: skip

    def asked(api: str, batch: int, count: int) -> Callable[[], Coroutine[Any, Any, dict[str, float]]]:
        retriever = HttpRetriever(url=url, api=api)  # type: ignore[arg-type]

        async def search(queries: list[str]) -> None:
            outcomes = await retriever.search(queries, 3)
            assert all(isinstance(one, list) and len(one) == 3 for one in outcomes), outcomes[0]

        total = args.queries if batch == 1 else args.queries * 4
        return lambda: meter(clients(search, meter.fresh(total), batch, count), total)

    def posted(body: bytes) -> Callable[[], Coroutine[Any, Any, dict[str, float]]]:
        async def post(_: list[str]) -> None:
            assert (await pool.post("/v1/search", body)).status == 200

        return lambda: meter(clients(post, meter.fresh(args.queries), 1, args.clients), args.queries)

    async def in_process(queries: list[str]) -> None:
        lookup(queries, 3)

    return {
        "single": asked("forage", 1, args.clients),
        "batch_64": asked("forage", 64, 8),
        "single_search_r1": asked("search-r1", 1, args.clients),
        "batch_64_search_r1": asked("search-r1", 64, 8),
        "cached": posted(b'{"queries":["a query asked before"]}'),
        "empty": posted(b'{"queries":[]}'),
        "in_process": lambda: meter(clients(in_process, meter.fresh(args.queries), 1, args.clients), args.queries),
    }


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--clients", type=int, default=64, help="clients that ask single queries at the same time")
    parser.add_argument(
        "--queries", type=int, default=4000, help="queries a case and round; four times as many in batches"
    )
    args = parser.parse_args()
    if not sys.platform.startswith("linux"):
        raise SystemExit("this reads the CPU time of another process, as Linux tells it")
    with serving() as (url, pid):
        found = asyncio.run(measure(url, pid, args))
    medians = {
        name: {part: round(statistics.median(cost[part] for cost in costs), 4) for part in costs[0]}
        for name, costs in found.items()
    }
    ratio = statistics.median(
        one["server_ms"] / other["server_ms"] for one, other in zip(found["cached"], found["empty"], strict=True)
    )
    without = medians["in_process"]["client_ms"]
    adds = {name: round(medians[name]["both_ms"] - without, 4) for name in medians if name not in ("in_process",)}
    result = {"http_adds_ms": adds, "cached_over_empty_server": round(ratio, 3), **medians}
    show({**result, "machine": machine(args.threads)}, as_json=args.json)


if __name__ == "__main__":
    main()
