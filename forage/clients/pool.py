"""POST requests to one or several servers that do the same: kept connections, retries, hedging."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forage.clients.breaker import Breaker
from forage.clients.service import check_url, retry_after_s
from forage.errors import ConfigError, MissingExtra, ServiceError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0
KEEP_S = 30.0  # an idle connection; less than servers keep theirs, so that none is used while it is being closed
RETRIED = frozenset({429, 502, 503, 504})
LARGEST_ANSWER = 256 * 2**20
_REMEMBERED, _ENOUGH = 256, 20  # latencies that a percentile is taken of, and how many it needs


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, whatever its status."""

    server: str
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How one request went: an answer, or why there is none, and when the server says to come again."""

    answer: Answer | None = None
    cause: str = ""
    after_s: float | None = None
    busy: bool = False  # the server is well, and has too much to do


@dataclass(slots=True)
class _Server:
    url: str
    breaker: Breaker


class Pool:
    """Asks the servers in turn, those left out that failed several times in a row.

    What may pass is tried again: no connection, a connection that broke, no answer in time, and the statuses 429, 502,
    503 and 504; on another server at once where there is one, else after a wait that doubles (.1 s to 10 s, less up to
    half at random) or that the server names. Any other answer is the answer. Connections live until `close`, or as long
    as the event loop.

    Args:
        urls: of the servers, without a path's end.
        headers: of every request.
        attempt_s: seconds that one request may take.
        deadline_s: seconds that all tries and waits may take together.
        retries: further tries after the first.
        connections: requests at a time, over all servers.
        hedge: a percentile; a request that takes longer than so many of those before is also sent to another server,
            and the first answer counts. 0: never.
        breaker_failures: failures in a row after which a server is left alone.
        breaker_pause_s: for how many seconds.
        sleep: waits between tries.
        clock: seconds, from anywhere.

    Raises:
        ConfigError: a URL is none, or hedging has no second server.
        MissingExtra: aiohttp is not installed.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        headers: Mapping[str, str],
        attempt_s: float,
        deadline_s: float,
        retries: int,
        connections: int,
        hedge: float,
        breaker_failures: int,
        breaker_pause_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            import aiohttp
        except ModuleNotFoundError as error:
            raise MissingExtra("aiohttp", "http") from error
        if hedge and len(urls) < 2:
            raise ConfigError(
                f"hedge = {hedge:g} asks a second server, and only one is named; name more, or set it to 0"
            )
        self._http = aiohttp
        self._servers = [
            _Server(_checked(url), Breaker(breaker_failures, breaker_pause_s, clock=clock)) for url in urls
        ]
        self._headers, self._attempt_s, self._deadline_s = dict(headers), attempt_s, deadline_s
        self._retries, self._connections, self._hedge = retries, connections, hedge
        self._sleep, self._clock = sleep, clock
        self._random = random.Random()
        self._turn = 0
        self._latencies: deque[float] = deque(maxlen=_REMEMBERED)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._holder: AsyncGenerator[None, None]
        self._session: Any = None
        self._turnstile: asyncio.Semaphore

    async def post(self, path: str, body: bytes) -> Answer:
        """The first answer that is none of those to try again.

        Raises:
            ServiceError: there is none after all tries; names the server and the cause of the last.
        """
        await self._connect()
        ends, tried, cause = self._clock() + self._deadline_s, 0, "no time"
        while tried <= self._retries:
            server = self._pick()
            if server is None:
                wait_s, said = min(other.breaker.wait_s for other in self._servers), f"{cause} (now left alone)"
            else:
                attempt = await self._hedged(server, path, body)
                if attempt.answer is not None:
                    return attempt.answer
                tried += 1
                cause = said = attempt.cause
                wait_s = self._wait_s(tried, attempt.after_s)
            if tried > self._retries or self._clock() + wait_s >= ends:
                cause = said
                break
            await self._sleep(wait_s)
        times = {0: "not asked", 1: "asked once"}.get(tried, f"asked {tried} times")
        raise ServiceError(f"{', '.join(server.url for server in self._servers)}: {times}, no answer: {cause}")

    async def close(self) -> None:
        """Close the connections; the next request opens others."""
        if self._loop is asyncio.get_running_loop():
            self._loop = None
            await self._holder.aclose()

    async def _connect(self) -> None:
        """One session an event loop; `asyncio.run` closes it with the loop, as it does with every open generator."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._turnstile = asyncio.Semaphore(self._connections)
            self._session = self._opened()
            self._holder = _until_closed(self._session)
            await anext(self._holder)

    def _opened(self) -> Any:
        http = self._http
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **self._headers}
        connector = http.TCPConnector(limit=0, keepalive_timeout=KEEP_S)
        jar = http.DummyCookieJar()
        return http.ClientSession(connector=connector, headers=headers, cookie_jar=jar, auto_decompress=False)

    def _pick(self, besides: _Server | None = None) -> _Server | None:
        """The next server in turn that takes requests."""
        for _ in self._servers:
            server = self._servers[self._turn % len(self._servers)]
            self._turn += 1
            if server is not besides and not server.breaker.wait_s:
                return server
        return None

    def _wait_s(self, tried: int, named_s: float | None) -> float:
        """Seconds before the next try; none where another server has not been tried yet."""
        if tried < len(self._servers) and self._others_well():
            return 0.0
        if named_s is not None:
            return named_s
        longest: float = min(FIRST_WAIT_S * 2 ** (tried - 1), LONGEST_WAIT_S)
        return longest * self._random.uniform(0.5, 1.0)

    def _others_well(self) -> bool:
        return any(not server.breaker.wait_s for server in self._servers)

    async def _hedged(self, server: _Server, path: str, body: bytes) -> _Attempt:
        """One try; of two servers where the first takes long."""
        delay_s = self._delay_s()
        if delay_s is None:
            return await self._attempt(server, path, body)
        tries = {asyncio.create_task(self._attempt(server, path, body))}
        try:
            done, _ = await asyncio.wait(tries, timeout=delay_s)
            if not done and (other := self._pick(besides=server)):
                tries.add(asyncio.create_task(self._attempt(other, path, body)))
            return await _first_answer(tries)
        finally:
            for one in tries:
                one.cancel()
            await asyncio.gather(*tries, return_exceptions=True)

    def _delay_s(self) -> float | None:
        if not self._hedge or len(self._latencies) < _ENOUGH:
            return None
        ordered = sorted(self._latencies)
        return ordered[min(int(len(ordered) * self._hedge / 100), len(ordered) - 1)]

    async def _attempt(self, server: _Server, path: str, body: bytes) -> _Attempt:
        server.breaker.enter()
        try:
            async with self._turnstile:
                started = self._clock()
                attempt = await self._request(server.url, path, body)
        except BaseException:
            server.breaker.left()
            raise
        if attempt.answer is not None:
            server.breaker.succeeded()
            self._latencies.append(self._clock() - started)
        elif attempt.busy:
            server.breaker.left()
        else:
            server.breaker.failed()
        return attempt

    async def _request(self, url: str, path: str, body: bytes) -> _Attempt:
        timeout = self._http.ClientTimeout(total=self._attempt_s)
        try:
            async with self._session.post(url + path, data=body, timeout=timeout, allow_redirects=False) as response:
                said = await _read(response)
        except TimeoutError:
            return _Attempt(cause=f"{url} gave no answer within {self._attempt_s:g} s")
        except (self._http.ClientError, OSError) as error:
            return _Attempt(cause=f"{url}: {type(error).__name__}: {shown(str(error).encode(errors='replace'))}")
        if response.status in RETRIED:
            after_s = retry_after_s(response.headers.get("retry-after", ""))
            cause = f"{url}: status {response.status}: {shown(said)}"
            return _Attempt(cause=cause, after_s=after_s, busy=response.status == 429)
        return _Attempt(Answer(url, response.status, said))


async def _until_closed(session: Any) -> AsyncGenerator[None, None]:
    """Holds a session open until the generator is closed, or the event loop closes it."""
    async with session:
        yield


async def _first_answer(tries: set[asyncio.Task[_Attempt]]) -> _Attempt:
    """The first that is an answer; without any, how the last failed."""
    pending = tries
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        attempts = [one.result() for one in done]
        answered = [attempt for attempt in attempts if attempt.answer is not None]
        if answered or not pending:
            return (answered or attempts)[0]


async def _read(response: Any) -> bytes:
    """The body, up to a size that no answer has."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > LARGEST_ANSWER:
            raise OSError(f"an answer of more than {LARGEST_ANSWER >> 20} MiB")
    return b"".join(parts)


def shown(body: bytes) -> str:
    """The beginning of a body, on one line."""
    line = " ".join(body[:1000].decode(errors="replace").split())
    return (line[:200] + " ...") if len(line) > 200 else line or "(empty)"


def _checked(url: str) -> str:
    """The URL without its last slash.

    Raises:
        ConfigError: it is none, or holds what would stand in the run's folder and in messages.
    """
    try:
        return check_url(url, "url", "http://127.0.0.1:8000", "token_env")
    except ValueError as error:
        raise ConfigError(f"url = {url!r}: {error}") from error
