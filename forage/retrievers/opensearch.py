"""A cluster asked over REST: by words (OpenSearch or Elasticsearch), by meaning, or both at once (OpenSearch).

Multi-search as documented at https://docs.opensearch.org/latest/api-reference/search-apis/multi-search/.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from msgspec import Meta

from forage.clients.rest import Login, Rest, quoted
from forage.clients.service import Sleep
from forage.errors import ConfigError
from forage.indexing.embedded import NOTHING, QueryEncoder
from forage.indexing.hybrid import Fusion, Method
from forage.indexing.mappings import VECTOR, encoding_of
from forage.retrievers.elsewhere import Elsewhere, Outcome, Vectors, flaw_of
from forage.retrievers.fusion import as_ranking
from forage.retrievers.hybrid import fuse
from forage.retrievers.multisearch import Fields, Hit, failure_of, inner_product
from forage.types import Passage

Mode = Literal["bm25", "knn", "hybrid"]


class OpenSearch:
    """Asks an index of a cluster, many queries a request (`_msearch`). The corpus is not read: see `forage load`.

    By words, statistics are those of all shards (`dfs_query_then_fetch`), so that scores don't depend on where a
    passage lies; by meaning, scores are inner products. Ties go to the earlier passage. An answer in which a shard is
    missing, or that ran out of time, is a failed search.

    Both at once are two searches, whose rankings are fused here: the engine's own hybrid query takes no statistics of
    all shards, and without a search pipeline gives scores that are no fusion.

    Args:
        url: of the cluster, such as `http://localhost:9200`.
        index: name there.
        mode: bm25 (by words), knn (by meaning) or hybrid.
        fields: searched by words; as `forage load` makes it, one field with title and text. Several are searched for
            the best.
        title_field: what is shown as title.
        text_field: what is shown as text.
        vector_field: what vectors are in.
        encoder: of queries; empty: the one that the index was loaded with, and no other is taken.
        encoder_options: of the encoder, such as `{path = "models/e5"}`: where it lies now.
        ef: passages that a search of the graph keeps in view; 0: as many as the index says.
        fusion: rrf or weighted, for hybrid.
        depth: passages of each ranking that are fused; without it 10 for rrf, 30 for weighted.
        lexical_weight: of BM25 in weighted fusion, from 0 to 1 (0.3).
        user_env: environment variable with the user's name, for Basic authentication; empty: none.
        password_env: environment variable with the password.
        api_key_env: environment variable with an API key, sent as `Authorization: ApiKey ...`.
        batch: queries a request, encoded together.
        concurrency: requests at a time.
        request_timeout_s: seconds that one request may take.
        retries: further tries after connection errors, timeouts, 429 and 5xx, with growing waits.

    Raises:
        ConfigError: the URL is none, a variable is not set, or an option does nothing in this mode.
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
        index: str,
        mode: Mode = "bm25",
        fields: tuple[str, ...] = ("contents",),
        title_field: str = "title",
        text_field: str = "text",
        vector_field: str = VECTOR,
        encoder: str = "",
        encoder_options: Mapping[str, Any] = NOTHING,
        ef: Annotated[int, Meta(ge=0)] = 0,
        fusion: Method | None = None,
        depth: Annotated[int, Meta(ge=1)] | None = None,
        lexical_weight: Annotated[float, Meta(ge=0, le=1)] | None = None,
        user_env: str = "",
        password_env: str = "",
        api_key_env: str = "",
        batch: Annotated[int, Meta(ge=1)] = 64,
        concurrency: Annotated[int, Meta(ge=1)] = 8,
        request_timeout_s: Annotated[float, Meta(gt=0)] = 20.0,
        retries: Annotated[int, Meta(ge=0)] = 4,
    ) -> None:
        del passages
        _check_mode(
            mode,
            {"encoder": encoder, "encoder_options": encoder_options, "ef": ef},
            {"fusion": fusion, "depth": depth, "lexical_weight": lexical_weight},
        )
        self._rest = Rest(
            url,
            Login(user_env, password_env, api_key_env, prefix="ApiKey "),
            extra="opensearch",
            timeout_s=request_timeout_s,
            retries=retries,
            concurrency=concurrency,
            environment=environment,
            sleep=sleep,
        )
        self._path, where = f"/{quoted(index)}", f"the index {index!r}"
        self._fields = Fields(tuple(fields), title_field, text_field, vector_field)
        self._words, self._near, self._ef = mode != "knn", mode != "bm25", ef
        self._fusion = Fusion.of(fusion or "rrf", depth, lexical_weight) if mode == "hybrid" else None
        queries = QueryEncoder(encoder, encoder_options) if self._near else None
        encoding = partial(encoding_of, self._rest, self._path, where)
        self._elsewhere = Elsewhere(self._rest, where, batch, queries, encoding)

    async def search(self, queries: Sequence[str], k: int) -> list[Outcome]:
        """One outcome a query; up to k passages, best first.

        Raises:
            ConfigError: the index was loaded with another encoder.
        """
        return await self._elsewhere.search(queries, partial(self._ask, k))

    async def _ask(self, k: int, queries: Sequence[str], vectors: Vectors) -> list[Outcome]:
        depth = max(self._fusion.depth, k) if self._fusion else k
        rows = self._fusion is not None
        lines: list[Any] = []
        for place, query in enumerate(queries):
            lines += self._fields.by_words(query, depth, rows=rows) if self._words else []
            lines += self._fields.by_vector(vectors[place], depth, self._ef, rows=rows) if self._near else []

        def read(reply: Any) -> list[Outcome]:
            responses, each = reply["responses"], len(lines) // 2 // len(queries)
            if len(responses) != each * len(queries):
                raise ValueError("not one response a search")
            return [
                self._outcome(query, responses[place * each : (place + 1) * each], k, depth)
                for place, query in enumerate(queries)
            ]

        path = f"{self._path}/_msearch"
        return await self._rest.call("POST", path, read, lines=lines, expected="answer to _msearch")

    def _outcome(self, query: str, responses: Sequence[Any], k: int, depth: int) -> Outcome:
        """What was found for one query.

        Raises:
            ValueError, LookupError, TypeError: not as documented.
        """
        if cause := next(filter(None, map(failure_of, responses)), ""):
            return self._elsewhere.failure(query, cause)
        found = [self._fields.hits(response, depth, rows=self._fusion is not None) for response in responses]
        if flaw := next(filter(None, (flaw_of([hit.passage for hit in hits]) for hits in found)), ""):
            return self._elsewhere.failure(query, flaw)
        if self._near:
            found[-1] = [Hit(_scored(hit.passage, inner_product(hit.passage.score)), hit.row) for hit in found[-1]]
        if self._fusion is None:
            return [hit.passage for hit in found[0]]
        passages = {hit.row: hit.passage for hits in found for hit in hits}
        words, near = (as_ranking([(hit.row, hit.passage.score) for hit in hits]) for hits in found)
        return [_scored(passages[row], score) for row, score in fuse(self._fusion, words, near, k, depth)]


def _scored(passage: Passage, score: float) -> Passage:
    return replace(passage, score=score)


def _check_mode(mode: Mode, of_vectors: Mapping[str, Any], of_fusion: Mapping[str, Any]) -> None:
    """Refuse what does nothing."""
    idle = [name for name, value in of_vectors.items() if mode == "bm25" and value]
    idle += [name for name, value in of_fusion.items() if mode != "hybrid" and value is not None]
    if idle:
        raise ConfigError(
            f"search.{idle[0]} does nothing with search.mode = {mode!r}: set another mode, or leave it out"
        )
