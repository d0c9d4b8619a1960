"""Chat completions over HTTP, from any server that speaks OpenAI's protocol (vLLM, SGLang, hosted models)."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from forage.errors import ConfigError, MissingExtra, ServiceError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
LONGEST_RETRY_AFTER_S = 600.0
RETRIED = frozenset({408, 409, 425, 429})

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one request went: a reply, or why there is none, whether another may help, and when (None: not said)."""

    reply: str | None = None
    cause: str = ""
    again: bool = False
    after_s: float | None = None


class ChatClient:
    """One message to a model, its reply back; bounded in time, in number, and in how often it is tried.

    Connections are kept while anything is asked, and closed when nothing is. Connection errors, timeouts, 429, 5xx and
    replies that can't be read are tried again, after a wait that doubles (.5 s to 60 s, less up to half at random) or
    that the server names (Retry-After).

    Args:
        url: up to the version, such as `https://api.openai.com/v1`; `/chat/completions` is added.
        model: name of the model there.
        api_key_env: environment variable that holds the key; empty: none is sent.
        timeout_s: seconds that one request may take.
        retries: further tries after the first.
        concurrency: requests at a time.
        request: further fields of each request, such as `{temperature = 0}`.
        environment: where the key is looked up.
        sleep: waits between tries.

    Raises:
        ConfigError: the key's variable is not set, or the URL is none, or holds a name or password.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key_env: str = "",
        timeout_s: float = 60.0,
        retries: int = 5,
        concurrency: int = 32,
        request: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] = os.environ,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtra("httpx2", "judge") from error
        self._http = httpx2
        self.url = _endpoint(url)
        self._key = _key(api_key_env, environment)
        self._body = {**(request or {}), "model": model}
        self._timeout_s, self._retries, self._concurrency, self._sleep = timeout_s, retries, concurrency, sleep
        self._certificates = httpx2.create_ssl_context()
        self._random = random.Random()
        self._asking = 0
        self._client: Any = None
        self._turnstile: asyncio.Semaphore

    async def ask(self, prompt: str) -> str:
        """The model's reply to one user message.

        Raises:
            ServiceError: no reply after all tries; names the URL and the last cause, never the key.
        """
        async with self._connected() as client:
            for tried in range(self._retries + 1):
                attempt = await self._attempt(client, prompt)
                if attempt.reply is not None:
                    return attempt.reply
                if not attempt.again or tried == self._retries:
                    break
                await self._sleep(self._wait_s(tried, attempt.after_s))
        times = "once" if tried == 0 else f"{tried + 1} times"
        raise ServiceError(f"{self.url} was asked {times} and gave no reply: {attempt.cause}")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        """One client for all that is asked at the same time."""
        if self._client is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            limits = self._http.Limits(max_connections=self._concurrency)
            # Timeouts are one for the whole request: the client's own are for each read, which a slow drip never meets.
            self._client = self._http.AsyncClient(
                headers=headers, timeout=None, limits=limits, verify=self._certificates
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

    async def _attempt(self, client: Any, prompt: str) -> Attempt:
        content = prompt.encode(errors="replace").decode()  # half a surrogate pair can't be sent
        body = self._body | {"messages": [{"role": "user", "content": content}]}
        try:
            async with self._turnstile, asyncio.timeout(self._timeout_s):
                response = await client.post(self.url, json=body)
        except TimeoutError:
            return Attempt(cause=f"no reply within {self._timeout_s:g} s", again=True)
        except self._http.RequestError as error:
            return Attempt(cause=f"{type(error).__name__}: {error}", again=True)
        if response.status_code != 200:
            again = response.status_code in RETRIED or response.status_code >= 500
            cause = f"status {response.status_code}: {self._shown(response.text)}"
            return _patient(Attempt(None, cause, again, _retry_after_s(response.headers.get("retry-after", ""))))
        try:
            return Attempt(_content(response.json()))
        except (ValueError, LookupError, TypeError):
            return Attempt(cause=f"a reply that is no chat completion: {self._shown(response.text)}", again=True)

    def _wait_s(self, tried: int, named_s: float | None) -> float:
        if named_s is not None:
            return named_s
        longest: float = min(FIRST_WAIT_S * 2**tried, LONGEST_WAIT_S)
        return longest * self._random.uniform(0.5, 1.0)

    def _shown(self, text: str) -> str:
        """The beginning of a body, on one line, without the key that some servers repeat."""
        line = " ".join(text.replace(self._key, "***").split()) if self._key else " ".join(text.split())
        return (line[:200] + " ...") if len(line) > 200 else line or "an empty body"


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"url = {url!r}: expected one such as https://api.openai.com/v1")
    if parts.username or parts.password or parts.query:  # it would stand in the run's folder and in messages
        raise ConfigError(f"url: that of {parts.hostname} must hold no name, password or query; see api_key_env")
    return f"{url.rstrip('/')}/chat/completions"


def _key(variable: str, environment: Mapping[str, str]) -> str:
    key = environment.get(variable, "").strip() if variable else ""
    if variable and not key:
        raise ConfigError(f"api_key_env = {variable!r}: there is no such environment variable, or it is empty")
    return key


def _content(body: Any) -> str:
    """The reply's text.

    Raises:
        ValueError, LookupError, TypeError: there is none.
    """
    content = body["choices"][0]["message"]["content"]
    if not isinstance(content, str):
        raise TypeError(f"content is {content!r}")
    return content


def _retry_after_s(header: str) -> float | None:
    """Seconds that a Retry-After header names, as a number or as a date (RFC 9110, 10.2.3)."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _patient(attempt: Attempt) -> Attempt:
    """The attempt, given up where the server names a wait that nobody would wait for."""
    if attempt.after_s is None or attempt.after_s <= LONGEST_RETRY_AFTER_S:
        return attempt
    return Attempt(None, f"{attempt.cause} (to be tried again after {attempt.after_s:.0f} s)")
