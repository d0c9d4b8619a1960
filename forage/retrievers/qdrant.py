"""Vectors on a cluster: Qdrant, asked over REST.

Queries as documented at https://api.qdrant.tech/api-reference/search/query-batch-points.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any

from msgspec import Meta

from forage.clients.rest import Login, Rest, quoted, score_of
from forage.clients.service import Sleep
from forage.indexing.embedded import NOTHING, QueryEncoder
from forage.indexing.qdrant import encoding_of
from forage.retrievers.elsewhere import Elsewhere, Outcome, Vectors, flaw_of
from forage.types import Passage


class Qdrant:
    """Asks a collection of a Qdrant cluster, many queries a request. The corpus is not read: see `forage load`.

    Args:
        url: of the cluster, such as `http://localhost:6333`.
        collection: name there.
        encoder: of queries; empty: the one that the collection was loaded with, and no other is taken. To be named
            where the collection does not say (before Qdrant 1.16, or loaded otherwise).
        encoder_options: of the encoder, such as `{path = "models/e5"}`: where it lies now.
        using: name of the vector, where points have several; empty: they have one.
        exact: compare with every vector, in place of the graph.
        ef: how widely the graph is searched (`hnsw_ef`); 0: the collection's own setting.
        api_key_env: environment variable with the API key, sent as `api-key`; empty: none.
        batch: queries a request, encoded together.
        concurrency: requests at a time.
        request_timeout_s: seconds that one request may take.
        retries: further tries after connection errors, timeouts, 429 and 5xx, with growing waits.

    Raises:
        ConfigError: the URL is none, or the variable is not set.
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
        encoder: str = "",
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
        self._path, where = f"/collections/{quoted(collection)}", f"the collection {collection!r}"
        self._using = using
        encoding = partial(encoding_of, self._rest, self._path, where)
        self._elsewhere = Elsewhere(self._rest, where, batch, QueryEncoder(encoder, encoder_options), encoding)
        self._params = ({"exact": True} if exact else {}) | ({"hnsw_ef": ef} if ef else {})

    async def search(self, queries: Sequence[str], k: int) -> list[Outcome]:
        """One outcome a query; the k nearest passages, nearest first.

        Raises:
            ConfigError: the collection was loaded with another encoder, or does not say and none is named.
        """
        return await self._elsewhere.search(queries, partial(self._ask, k))

    async def _ask(self, k: int, queries: Sequence[str], vectors: Vectors) -> list[Outcome]:
        def read(reply: Any) -> list[Outcome]:
            found = [_nearest(result["points"], k) for result in reply["result"]]
            return [self._outcome(*each) for each in zip(queries, found, strict=True)]

        body, path = {"searches": [self._search(vector, k) for vector in vectors]}, f"{self._path}/points/query/batch"
        return await self._rest.call("POST", path, read, body=body, expected="answer to points/query/batch")

    def _outcome(self, query: str, passages: list[Passage]) -> Outcome:
        flaw = flaw_of(passages)
        return self._elsewhere.failure(query, flaw) if flaw else passages

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
    scores = [score_of(point["score"]) for point in points]
    grow = any(score < after for score, after in pairwise(scores))
    scored = [
        (-score if grow else score, str(point["id"]).zfill(20), point)
        for score, point in zip(scores, points, strict=True)
    ]
    return [_passage(point, score) for score, _, point in sorted(scored, key=lambda one: (-one[0], one[1]))]


def _passage(point: Any, score: float) -> Passage:
    payload = point["payload"]
    title, text = payload.get("title") or "", payload["text"]
    if not isinstance(title, str) or not isinstance(text, str):
        raise TypeError("a text that is none")
    return Passage(str(payload.get("id", point["id"])), title, text, score)
