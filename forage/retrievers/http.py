"""A search server over HTTP: Forage's own (`forage serve`), or any that speaks Search-R1's contract."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from forage.clients.pool import Answer, Pool, shown
from forage.clients.service import encodable, key_of
from forage.concurrency import together
from forage.errors import ConfigError, RetrieverError, ServiceError
from forage.retrievers.http_answers import WrongAnswer, read_result, read_results
from forage.types import Passage

Outcome = list[Passage] | RetrieverError
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]

SPLIT = frozenset({400, 413, 422, 500})
"""What one query can bring upon all that are asked with it."""


class HttpRetriever:
    """Asks one or several servers; the queries of a call go together, in requests of up to `batch`.

    Where a server refuses or fails at a request (400, 413, 422, 500), its queries are asked again in halves, so that
    only those fail that fail by themselves. An answer is checked before it is believed: one result a query, no more
    than k passages, each with a text and a number as its score. The corpus is not read.

    Args:
        url: of the server; several as a list, or with commas between them, share the work.
        api: "forage" for `forage serve`, "search-r1" for any server with Search-R1's `POST /retrieve`.
        token_env: environment variable with the server's token; empty: none is sent.
        attempt_s: seconds that one request may take.
        deadline_s: seconds for all tries of a request; less than `search.timeout_s`, which names no server.
        retries: further tries after the first, where it may help.
        connections: requests at a time.
        batch: queries a request.
        hedge: a percentile of the latencies, such as 95, after which a second server is asked too; 0: never.
        breaker_failures: failures in a row after which a server is left alone.
        breaker_pause_s: seconds that it is left alone for.

    Raises:
        ConfigError: a URL is none, the token's variable is not set, or hedging has no second server.
        MissingExtra: aiohttp is not installed.
    """

    def __init__(
        self,
        passages: Iterable[Passage] = (),
        *,
        url: str | tuple[str, ...],
        api: Literal["forage", "search-r1"] = "forage",
        token_env: str = "",
        attempt_s: Seconds = 20.0,
        deadline_s: Seconds = 55.0,
        retries: Annotated[int, Meta(ge=0)] = 8,
        connections: Positive = 64,
        batch: Positive = 256,
        hedge: Annotated[float, Meta(ge=0, le=99)] = 0.0,
        breaker_failures: Positive = 5,
        breaker_pause_s: Seconds = 2.0,
    ) -> None:
        del passages
        self._api, self._batch = api, batch
        self._pool = Pool(
            _urls(url),
            headers=_authorization(token_env),
            attempt_s=attempt_s,
            deadline_s=deadline_s,
            retries=retries,
            connections=connections,
            hedge=hedge,
            breaker_failures=breaker_failures,
            breaker_pause_s=breaker_pause_s,
        )

    async def search(self, queries: Sequence[str], k: int) -> list[Outcome]:
        """One outcome a query.

        Raises:
            ConfigError: the server gives fewer passages a query than k.
        """
        sendable = [encodable(query) for query in queries]
        pieces = [sendable[start : start + self._batch] for start in range(0, len(sendable), self._batch)]
        answers = await together(self._ask(piece, k) for piece in pieces)
        return [outcome for outcomes in answers for outcome in outcomes]

    async def close(self) -> None:
        """Close the connections now, and not with the event loop; the next search opens others."""
        await self._pool.close()

    async def _ask(self, queries: list[str], k: int) -> list[Outcome]:
        path, body = self._request(queries, k)
        try:
            answer = await self._pool.post(path, body)
        except ServiceError as error:
            return [RetrieverError(str(error)) for _ in queries]
        if answer.status == 200:
            return self._read(answer, len(queries), k)
        if answer.status == 422 and (message := _above_max_k(answer.body)):
            raise ConfigError(f"search.k = {k}: {answer.server} refuses it: {message}")
        if answer.status in SPLIT and len(queries) > 1:
            half = len(queries) // 2
            halves = await together([self._ask(queries[:half], k), self._ask(queries[half:], k)])
            return [*halves[0], *halves[1]]
        said = f"{answer.server}: status {answer.status}: {shown(answer.body)}"
        return [RetrieverError(said) for _ in queries]

    def _request(self, queries: list[str], k: int) -> tuple[str, bytes]:
        body: dict[str, Any] = {"queries": queries}
        if self._api == "forage":
            return "/v1/search", msgspec.json.encode(body | {"k": k})
        return "/retrieve", msgspec.json.encode(body | {"topk": k, "return_scores": True})

    def _read(self, answer: Answer, asked: int, k: int) -> list[Outcome]:
        read = read_results if self._api == "forage" else read_result
        try:
            found = read(answer.body, asked, k)
        except WrongAnswer as error:
            said = f"{answer.server} gave a wrong answer: {error}: {shown(answer.body)}"
            return [RetrieverError(said) for _ in range(asked)]
        return [RetrieverError(f"{answer.server}: {one}") if isinstance(one, str) else one for one in found]


def _urls(url: str | tuple[str, ...]) -> list[str]:
    """The servers, each without the path's end that people copy with it."""
    named = url.split(",") if isinstance(url, str) else url
    urls = [one.strip().rstrip("/").removesuffix("/retrieve") for one in named if one.strip()]
    if not urls:
        raise ConfigError("search.url is empty: name a server, such as http://127.0.0.1:8000")
    return urls


def _authorization(variable: str) -> dict[str, str]:
    key = key_of(variable, os.environ, "search.token_env")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _above_max_k(body: bytes) -> str:
    """The message of Forage's service where k is above its limit; empty where it says something else."""
    try:
        error = msgspec.json.decode(body)["error"]
        return str(error["message"]) if error["code"] == "max_k" else ""
    except (msgspec.DecodeError, LookupError, TypeError):
        return ""
