"""The service: an ASGI application over any index.

Every request gets one answer, JSON but for `/metrics`; whatever goes wrong has a status and a name.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import msgspec

from forage.errors import RetrieverError
from forage.server.board import Board
from forage.server.cache import AnswerCache
from forage.server.contract import Asked, answer, encoded, read_retrieve, read_search
from forage.server.keeper import Keeper, Opened
from forage.server.limits import LIMITS, Limits
from forage.server.log import Log
from forage.server.openapi import description
from forage.server.refusal import CLOSE, SOON, Refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON, _TEXT = b"application/json", b"text/plain; version=0.0.4; charset=utf-8"
_METHODS = {"/retrieve": "POST", "/v1/search": "POST"} | dict.fromkeys(
    ("/v1/info", "/health", "/ready", "/metrics", "/openapi.json"), "GET"
)
_OPEN_TO_ALL = ("/health", "/ready")  # also without the token: they say nothing of the index


@dataclass(frozen=True, slots=True)
class _Reply:
    body: bytes
    status: int = 200
    kind: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _Gone(Exception):
    """The client hung up."""


class Service:
    """An ASGI application; the index is opened when it starts, in a thread, and until then it answers 503.

    Args:
        open_index: opens the index.
        limits: what is taken, and how long is waited.
        token: asked for as `Authorization: Bearer TOKEN`; empty: none is.
        board: counts; one of its own without it.
        log: where events go.
        log_requests: whether every request is an event.
        on_failure: told the message where the index can't be opened; without it, opening is tried again for good.
    """

    def __init__(
        self,
        open_index: Callable[[], Opened],
        *,
        limits: Limits = LIMITS,
        token: str = "",
        board: Board | None = None,
        log: Log | None = None,
        log_requests: bool = False,
        on_failure: Callable[[str], None] | None = None,
    ) -> None:
        self.limits, self.board, self.log = limits, board or Board(), log or Log()
        self._log_requests, self._token = log_requests, token.encode()
        self._cache = AnswerCache(limits.cache_mb * 10**6)
        self._keeper = Keeper(open_index, self.board, self.log, max_queue=limits.max_queue, on_failure=on_failure)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            raise RuntimeError(f"{scope['type']} is not served")

    async def _live(self, receive: Receive, send: Send) -> None:
        """From the service's start to its end."""
        await receive()
        self.board.start()
        keeping = asyncio.create_task(self._keeper.keep())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        self._keeper.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, path = time.perf_counter(), scope["path"]
        self._in_flight += 1
        self.board.set("in_flight", self._in_flight)
        try:
            reply = await self._reply(scope, path, receive)
            await _send(send, reply)
            seconds = time.perf_counter() - started
            self.board.answered(path, reply.status, seconds)
            if self._log_requests:
                self.log("request", path=path, status=reply.status, ms=round(1000 * seconds, 2), bytes=len(reply.body))
        except _Gone:
            pass
        finally:
            self._in_flight -= 1
            self.board.set("in_flight", self._in_flight)

    async def _reply(self, scope: Scope, path: str, receive: Receive) -> _Reply:
        try:
            self._check(scope, path)
            if path in ("/v1/search", "/retrieve"):
                body = await self._body(receive)
                return _Reply(await self._searched(path, body))
            return self._told(path)
        except Refusal as refusal:
            return _refused(refusal)
        except _Gone:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave a request without an answer
            self.log("fault", path=path, error=f"{type(error).__name__}: {error}")
            return _refused(Refusal(500, "fault", f"the service failed: {type(error).__name__}"))

    def _check(self, scope: Scope, path: str) -> None:
        method = _METHODS.get(path)
        if method is None:
            raise Refusal(404, "not_found", f"there is no {path[:100]}; GET /openapi.json lists what there is")
        if scope["method"] not in (method, "HEAD" if method == "GET" else method):
            raise Refusal(405, "method", f"{path} takes {method}", headers={"allow": method})
        if self._token and path not in _OPEN_TO_ALL:
            given = _header(scope, b"authorization")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                message = "this service asks for its token: Authorization: Bearer TOKEN"
                raise Refusal(401, "token", message, headers={"www-authenticate": "Bearer"})

    async def _body(self, receive: Receive) -> bytes:
        """The request's body. One that is too large is read to its end (within reason), so that the refusal arrives."""
        limit, size = self.limits.max_request_bytes, 0
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self.limits.read_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    size += len(message["body"])
                    parts.append(message["body"])
                    if size > limit:
                        parts.clear()
                    if not message.get("more_body") or size > 4 * limit:
                        break
        except TimeoutError:
            what = f"the request did not arrive within {self.limits.read_s:g} s"
            raise Refusal(408, "read_s", what, limit=self.limits.read_s, headers=CLOSE) from None
        if size > limit:
            what = f"a body of {size} bytes or more; this service takes at most {limit} (max_request_bytes)"
            raise Refusal(413, "max_request_bytes", what, limit=limit, headers=CLOSE)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _searched(self, path: str, body: bytes) -> bytes:
        asked = (read_search if path == "/v1/search" else read_retrieve)(body, self.limits)
        self.board.add("queries_total", len(asked.queries))
        found: list[Any] = [self._cache.get(asked.api, query, asked.k) for query in asked.queries]
        missing = [place for place, one in enumerate(found) if one is None]
        self.board.add("cache_hits_total", len(found) - len(missing))
        if missing:
            self.board.add("cache_misses_total", len(missing))
            outcomes = await self._asked(Asked(asked.api, [asked.queries[place] for place in missing], asked.k))
            for place, outcome in zip(missing, outcomes, strict=True):
                found[place] = outcome
            self.board.set("cache_bytes", self._cache.bytes)
        return answer(asked.api, found)

    async def _asked(self, asked: Asked) -> list[bytes | RetrieverError]:
        """What the index finds, as it stands in answers; remembered."""
        desk = self._keeper.desk
        try:
            async with asyncio.timeout(self.limits.answer_s):
                outcomes = await desk.ask(asked.queries, asked.k)
        except TimeoutError:
            what = f"no answer within {self.limits.answer_s:g} s"
            raise Refusal(504, "answer_s", what, limit=self.limits.answer_s) from None
        written: list[bytes | RetrieverError] = []
        for query, outcome in zip(asked.queries, outcomes, strict=True):
            written.append(outcome if isinstance(outcome, RetrieverError) else self._written(asked, query, outcome))
        return written

    def _written(self, asked: Asked, query: str, passages: Any) -> bytes | RetrieverError:
        try:
            one = encoded(asked.api, passages)
        except (RetrieverError, AttributeError) as error:
            return error if isinstance(error, RetrieverError) else RetrieverError(f"the index gave no passage: {error}")
        self._cache.put(one, asked.api, query, asked.k)
        return one

    def _told(self, path: str) -> _Reply:
        """What the service says of itself."""
        match path:
            case "/metrics":
                return _Reply(self.board.prometheus().encode(), kind=_TEXT)
            case "/openapi.json":
                return _Reply(msgspec.json.encode(description(self.limits, secured=bool(self._token))))
            case "/v1/info":
                return _Reply(msgspec.json.encode(self._info()))
        desk = self._keeper.desk
        if not self.board.all_were_ready():
            raise Refusal(503, "not_ready", "another worker is still opening the index", headers=SOON)
        if path == "/ready" and desk.full:
            raise Refusal(503, "max_queue", "as many queries wait as may", headers=SOON)
        return _Reply(b'{"status":"ok"}')

    def _info(self) -> dict[str, Any]:
        version, limits = metadata.version("forage-rl"), self.limits.as_json()
        return {"service": "forage", "version": version, "index": self._keeper.info, "limits": limits}


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _refused(refusal: Refusal) -> _Reply:
    headers = tuple((name.encode(), value.encode()) for name, value in refusal.headers.items())
    return _Reply(refusal.body(), refusal.status, headers=headers)


async def _send(send: Send, reply: _Reply) -> None:
    length = (b"content-length", str(len(reply.body)).encode())
    headers = [(b"content-type", reply.kind), length, *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
