"""Vectors on a cluster: Qdrant, asked over REST.

Queries as documented at https://api.qdrant.tech/api-reference/search/query-batch-points.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Protocol

from msgspec import Meta

from forage.clients.rest import Login, Rest, quoted
from forage.clients.service import Sleep, encodable
from forage.concurrency import together
from forage.errors import RetrieverError, ServiceError
from forage.indexing.qdrant import vectors
from forage.options import arguments
from forage.registry import find
from forage.types import Passage

Outcome = list[Passage] | RetrieverError
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Encoder(Protocol):
    """Queries to vectors: an array [queries, dimensions] of floats."""

    def encode(self, queries: Sequence[str]) -> Any: ...


class Qdrant:
    """Asks a collection of a Qdrant cluster, many queries a request. The corpus is not read: see `load_qdrant`.

    Args:
        url: of the cluster, such as `http://localhost:6333`.
        collection: name there.
        encoder: `package.module:Class` with `encode(queries)`; the one that the collection was made with.
        encoder_options: of that class.
        using: name of the vector, where points have several; empty: they have one.
        exact: compare with every vector, in place of the graph.
        ef: how widely the graph is searched (`hnsw_ef`); 0: the collection's own setting.
        api_key_env: environment variable with the API key, sent as `api-key`; empty: none.
        batch: queries a request, encoded together.
        concurrency: requests at a time.
        request_timeout_s: seconds that one request may take.
        retries: further tries after connection errors, timeouts, 429 and 5xx, with growing waits.

    Raises:
        ConfigError: the URL is none, the variable is not set, or there is no such encoder.
        MissingExtra: httpx2 is not installed.
    """

    bounds_itself = True  # each request has its timeout, and waits for its turn

    def __init__(
        self,
        passages: Iterable[Passage] = (),
        environment: Mapping[str, str] = os.environ,
        sleep: Sleep = asyncio.sleep,
        *,
        url: str,
        collection: str,
        encoder: str,
        encoder_options: Mapping[str, Any] = NOTHING,
        using: str = "",
        exact: bool = False,
        ef: Annotated[int, Meta(ge=0)] = 0,
        api_key_env: str = "",
        batch: Annotated[int, Meta(ge=1)] = 64,
        concurrency: Annotated[int, Meta(ge=1)] = 8,
        request_timeout_s: Annotated[float, Meta(gt=0)] = 20.0,
        retries: Annotated[int, Meta(ge=0)] = 4,
    ) -> None:
        del passages
        self._rest = Rest(
            url,
            Login(api_key_env=api_key_env, header="api-key"),
            extra="qdrant",
            timeout_s=request_timeout_s,
            retries=retries,
            concurrency=concurrency,
            environment=environment,
            sleep=sleep,
        )
        made = find("encoder", encoder)
        self._encoder: Encoder = made(**arguments("encoder", encoder, encoder_options))
        self._path = f"/collections/{quoted(collection)}/points/query/batch"
        self._using, self._batch = using, batch
        self._params = ({"exact": True} if exact else {}) | ({"hnsw_ef": ef} if ef else {})

    async def search(self, queries: Sequence[str], k: int) -> list[Outcome]:
        """One outcome a query; the k nearest passages, nearest first.

        Raises:
            DataError: the encoder gives something else than vectors.
        """
        batches = [queries[start : start + self._batch] for start in range(0, len(queries), self._batch)]
        encoded = []
        for batch in batches:  # one after another: an encoder uses the whole machine
            texts = [encodable(query) for query in batch]
            encoded.append(await asyncio.to_thread(vectors, self._encoder.encode, texts))
        asked = (self._ask(batch, rows, k) for batch, rows in zip(batches, encoded, strict=True))
        return [outcome for outcomes in await together(asked) for outcome in outcomes]

    async def _ask(self, queries: Sequence[str], rows: Sequence[Sequence[float]], k: int) -> list[Outcome]:
        def read(reply: Any) -> list[Outcome]:
            if len(reply["result"]) != len(queries):
                raise ValueError("not one result a query")
            return [_nearest(result["points"], k) for result in reply["result"]]

        body = {"searches": [self._search(row, k) for row in rows]}
        try:
            return await self._rest.call("POST", self._path, read, body=body, expected="answer to points/query/batch")
        except ServiceError as error:
            return [RetrieverError(f"the search for {query[:200]!r} failed: {error}") for query in queries]

    def _search(self, vector: Sequence[float], k: int) -> dict[str, Any]:
        search = {"query": vector, "limit": k, "with_payload": ["id", "title", "text"]}
        return (
            search
            | ({"using": self._using} if self._using else {})
            | ({"params": self._params} if self._params else {})
        )


def _nearest(points: Any, k: int) -> list[Passage]:
    """The points as passages, best first; those of equal score by their place in the corpus.

    Raises:
        ValueError, LookupError, TypeError: not as documented.
    """
    if len(points) > k:
        raise ValueError("more points than asked for")
    # Similarities fall along the list, distances (Euclid) grow.
    grow = any(points[row]["score"] < points[row + 1]["score"] for row in range(len(points) - 1))
    scored = [(-point["score"] if grow else point["score"], str(point["id"]).zfill(20), point) for point in points]
    return [_passage(point, score) for score, _, point in sorted(scored, key=lambda one: (-one[0], one[1]))]


def _passage(point: Any, score: float) -> Passage:
    payload = point["payload"]
    title, text = payload.get("title") or "", payload["text"]
    if not isinstance(title, str) or not isinstance(text, str):
        raise TypeError("a text that is none")
    return Passage(str(payload.get("id", point["id"])), title, text, float(score))
