"""Engines that speak REST: their address, who we are to them, and their two kinds of bodies."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from forage.clients.service import Request, Say, Service, Sleep, check_url, key_of, quiet
from forage.errors import ConfigError

T = TypeVar("T")
CHECK_S = 5.0
"""Seconds in which a server that is there answers something."""


@dataclass(frozen=True, slots=True)
class Login:
    """Environment variables that hold a user and password (Basic), or a key that stands in a header behind a prefix."""

    user_env: str = ""
    password_env: str = ""
    api_key_env: str = ""
    header: str = "Authorization"
    prefix: str = ""

    def headers(self, environment: Mapping[str, str] = os.environ) -> tuple[dict[str, str], list[str]]:
        """Headers that say who we are, and the secrets in them.

        Raises:
            ConfigError: a variable is not set, or only one of user and password is named, or a key besides.
        """
        if bool(self.user_env) != bool(self.password_env) or (self.user_env and self.api_key_env):
            raise ConfigError("name search.user_env and search.password_env, or search.api_key_env, or none")
        if self.user_env:
            password = key_of(self.password_env, environment, "password_env")
            said = f"{key_of(self.user_env, environment, 'user_env')}:{password}"
            packed = base64.b64encode(said.encode()).decode()
            return {"Authorization": f"Basic {packed}"}, [password, packed]
        key = key_of(self.api_key_env, environment)
        return ({self.header: f"{self.prefix}{key}"}, [key]) if key else ({}, [])


class Rest:
    """An engine at an address; bounded and tried again as `Service` says.

    Raises:
        ConfigError: the URL is none, or who we are can't be said.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(
        self,
        url: str,
        login: Login,
        *,
        extra: str,
        timeout_s: float,
        retries: int,
        concurrency: int,
        environment: Mapping[str, str] = os.environ,
        sleep: Sleep = asyncio.sleep,
        say: Say = quiet,
    ) -> None:
        self.url = check_url(url, "search.url", "http://localhost:9200", "search.user_env and search.api_key_env")
        headers, secrets = login.headers(environment)
        self._service = Service(
            extra=extra,
            headers=headers,
            secrets=secrets,
            timeout_s=timeout_s,
            retries=retries,
            concurrency=concurrency,
            sleep=sleep,
            say=say,
        )

    async def check(self, within_s: float = CHECK_S) -> None:
        """Ask once whether somebody answers at the address.

        Raises:
            ServiceError: nobody does.
        """
        await self._service.check(self.url, within_s)

    async def call(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T],
        *,
        body: Any = None,
        lines: Iterable[Any] | None = None,
        params: Mapping[str, Any] | None = None,
        expected: str = "usable reply",
    ) -> T:
        """What `read` makes of the reply's JSON.

        Args:
            path: behind the address, quoted (`quoted`) where it holds names.
            body: sent as JSON.
            lines: sent as lines of JSON (NDJSON), in place of a body.

        Raises:
            ServiceError: no reply that can be read, after all tries.
        """
        content = b"".join(json.dumps(line).encode() + b"\n" for line in lines) if lines is not None else None
        headers = {"Content-Type": "application/x-ndjson"} if lines is not None else {}
        request = Request(method, f"{self.url}{path}", params or {}, body, content, headers)
        return await self._service.ask(request, lambda reply: read(json.loads(reply)), expected)


def score_of(value: Any) -> float:
    """A score as a reply gives it.

    Raises:
        TypeError: it is no number.
        ValueError: it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a score that is no number")
    if not math.isfinite(value):
        raise ValueError(f"a score of {value}")
    return float(value)


def quoted(name: str) -> str:
    """A name as one step of a path."""
    return quote(name, safe="")
