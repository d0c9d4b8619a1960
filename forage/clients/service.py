"""Asking a service over HTTP: bounded in time, size and number, and tried again where that may help."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote, quote_plus, urlsplit

from forage.errors import ConfigError, MissingExtra, ServiceError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
LONGEST_RETRY_AFTER_S = 600.0
RETRIED = frozenset({408, 409, 425, 429})
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading a reply may raise that is not what was expected, nested without end included."""

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]
Say = Callable[[str], None]
"""Tells a person something."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent. Bodies are JSON (`json`) or bytes (`content`)."""

    method: str
    url: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt(Generic[T]):
    """How one request went: a reply, or why there is none, whether another may help, and when (None: not said)."""

    reply: T | None = None
    cause: str = ""
    again: bool = False
    after_s: float | None = None
    status: int | None = None


def quiet(message: str) -> None:
    """Tells nobody."""
    del message


def again_in(tried: int, retries: int, wait_s: float) -> str:
    """What follows a try that failed, in words."""
    return f"(attempt {tried + 1} of {retries + 1}): again in {wait_s:.1f} s"


class Service:
    """Whatever answers requests at a URL.

    Connections are kept while anything is asked, and closed when nothing is. Connection errors, timeouts, 408, 409,
    425, 429, 5xx and replies that can't be read are tried again, after a wait that doubles (.5 s to 60 s, less up to
    half at random) or that the server names (Retry-After).

    Args:
        extra: of `pip install 'forage-rl[...]'`, where the HTTP client is missing.
        headers: sent with every request.
        secrets: cut out of whatever a server says before it is passed on.
        timeout_s: seconds that one request may take.
        retries: further tries after the first.
        concurrency: requests at a time.
        max_bytes: of a reply.
        before: awaited before each request, tries included; what it raises is raised by `ask`.
        sleep: waits between tries.
        say: is told before each wait what failed, and how long the wait is.

    Raises:
        MissingExtra: httpx2 is not installed.
    """

    def __init__(
        self,
        *,
        extra: str,
        headers: Mapping[str, str] | None = None,
        secrets: Iterable[str] = (),
        timeout_s: float = 60.0,
        retries: int = 5,
        concurrency: int = 32,
        max_bytes: int = 64 * 2**20,
        before: Callable[[], Awaitable[None]] | None = None,
        sleep: Sleep = asyncio.sleep,
        say: Say = quiet,
    ) -> None:
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtra("httpx2", extra) from error
        self._http = httpx2
        self._headers = dict(headers or {})
        self._secrets = [form for key in secrets if key for form in (key, quote(key, safe=""), quote_plus(key))]
        self._timeout_s, self._retries, self._concurrency = timeout_s, retries, concurrency
        self._max_bytes, self._before, self._sleep, self._say = max_bytes, before, sleep, say
        self._certificates = httpx2.create_ssl_context()
        self._random = random.Random()
        self._asking = 0
        self._client: Any = None
        self._turnstile: asyncio.Semaphore

    async def ask(self, request: Request, read: Callable[[bytes], T], expected: str = "usable reply") -> T:
        """What `read` makes of the reply.

        Args:
            read: the body to a value; raises one of `UNREADABLE` where it can't be read.
            expected: what such a body is not, in words.

        Raises:
            ServiceError: no reply after all tries; names the URL and the last cause, never a secret.
        """
        async with self._connected() as client:
            for tried in range(self._retries + 1):
                attempt = await self._attempt(client, request, read, expected)
                if attempt.reply is not None:
                    return attempt.reply
                if not attempt.again or tried == self._retries:
                    break
                wait_s = self._wait_s(tried, attempt.after_s)
                self._say(f"{request.url}: {attempt.cause} {again_in(tried, self._retries, wait_s)}")
                await self._sleep(wait_s)
        times = "once" if tried == 0 else f"{tried + 1} times"
        raise ServiceError(f"{request.url} was asked {times} and gave no reply: {attempt.cause}", attempt.status)

    async def check(self, url: str, within_s: float) -> None:
        """Ask once whether somebody answers at a URL, whatever the answer.

        Raises:
            ServiceError: nobody does.
        """
        async with self._connected() as client:
            attempt = await self._attempt(client, Request("GET", url), lambda _: True, "reply", within_s)
        if attempt.reply is None and attempt.status is None:
            raise ServiceError(f"nobody answers at {url} ({attempt.cause}): is the address right, and the server up?")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        """One client for all that is asked at the same time."""
        if self._client is None:
            limits = self._http.Limits(max_connections=self._concurrency)
            # Timeouts are one for the whole request: the client's own are for each read, which a slow drip never meets.
            self._client = self._http.AsyncClient(
                headers=self._headers, timeout=None, limits=limits, verify=self._certificates
            )
            self._turnstile = asyncio.Semaphore(self._concurrency)
        self._asking += 1
        try:
            yield self._client
        finally:
            self._asking -= 1
            if not self._asking:
                client, self._client = self._client, None
                await client.aclose()

    async def _attempt(
        self,
        client: Any,
        request: Request,
        read: Callable[[bytes], T],
        expected: str,
        within_s: float = math.inf,
    ) -> Attempt[T]:
        timeout_s = min(self._timeout_s, within_s)
        async with self._turnstile:
            if self._before:
                await self._before()
            try:
                async with asyncio.timeout(timeout_s):
                    status, headers, body = await self._send(client, request)
            except TimeoutError:
                return Attempt(cause=f"no reply within {timeout_s:g} s", again=True)
            except self._http.RequestError as error:
                return Attempt(cause=f"{type(error).__name__}: {self._shown(str(error))}", again=True)
        if len(body) > self._max_bytes:
            return Attempt(cause=f"a reply of more than {self._max_bytes:,} bytes", status=status)
        if not 200 <= status < 300:
            again = status in RETRIED or status >= 500
            cause = f"status {status}: {self._shown(_text(body))}"
            return _patient(Attempt(None, cause, again, retry_after_s(headers.get("retry-after", "")), status))
        try:
            return Attempt(read(body))
        except UNREADABLE:
            return Attempt(cause=f"a reply that is no {expected}: {self._shown(_text(body))}", again=True)

    async def _send(self, client: Any, request: Request) -> tuple[int, Any, bytes]:
        """Status, headers and body; of one that is too long, no more than shows that it is."""
        body = bytearray()
        async with client.stream(
            request.method,
            request.url,
            params=dict(request.params) or None,
            json=request.json,
            content=request.content,
            headers=dict(request.headers),
        ) as response:
            async for part in response.aiter_bytes():
                body += part
                if len(body) > self._max_bytes:
                    break
        return response.status_code, response.headers, bytes(body)

    def _wait_s(self, tried: int, named_s: float | None) -> float:
        if named_s is not None:
            return named_s
        longest: float = min(FIRST_WAIT_S * 2**tried, LONGEST_WAIT_S)
        return longest * self._random.uniform(0.5, 1.0)

    def _shown(self, text: str) -> str:
        """The beginning of a body, on one line, without the keys that some servers repeat."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        line = " ".join(text.split())
        return (line[:200] + " ...") if len(line) > 200 else line or "an empty body"


def check_url(url: str, name: str, example: str, instead: str) -> str:
    """The URL, without slashes at its end.

    Raises:
        ConfigError: it is none, or holds what would stand in the run's folder and in messages.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{name} = {url!r}: expected one such as {example}")
    if parts.username or parts.password or parts.query:
        raise ConfigError(f"{name}: that of {parts.hostname} must hold no name, password or query; see {instead}")
    return url.rstrip("/")


def key_of(variable: str, environment: Mapping[str, str], name: str = "api_key_env") -> str:
    """The key that an environment variable holds; empty where no variable is named.

    Raises:
        ConfigError: there is none in it.
    """
    key = environment.get(variable, "").strip() if variable else ""
    if variable and not key:
        raise ConfigError(f"{name} = {variable!r}: there is no such environment variable, or it is empty")
    return key


def encodable(text: str) -> str:
    """The text without halves of surrogate pairs, which can't be sent."""
    return text.encode(errors="replace").decode()


def _text(body: bytes) -> str:
    return body.decode(errors="replace")


def retry_after_s(header: str) -> float | None:
    """Seconds that a Retry-After header names, as a number or as a date (RFC 9110, 10.2.3)."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _patient(attempt: Attempt[T]) -> Attempt[T]:
    """The attempt, given up where the server names a wait that nobody would wait for."""
    if attempt.after_s is None or attempt.after_s <= LONGEST_RETRY_AFTER_S:
        return attempt
    cause = f"{attempt.cause} (to be tried again after {attempt.after_s:.0f} s)"
    return Attempt(None, cause, status=attempt.status)


class _WithoutQuery(logging.Filter):
    """Cuts the query off the URLs that the HTTP client logs: some services are given their key there."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                str(item).partition("?")[0] if str(item).startswith(("http://", "https://")) else item
                for item in record.args
            )
        return True


logging.getLogger("httpx2").addFilter(_WithoutQuery())
