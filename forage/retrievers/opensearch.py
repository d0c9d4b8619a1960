"""BM25 on a cluster: OpenSearch or Elasticsearch, asked over REST.

Multi-search as documented at https://docs.opensearch.org/latest/api-reference/search-apis/multi-search/.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta

from forage.clients.rest import Login, Rest, quoted
from forage.clients.service import Sleep, encodable
from forage.concurrency import together
from forage.errors import RetrieverError, ServiceError
from forage.types import Passage

Outcome = list[Passage] | RetrieverError


class OpenSearch:
    """Asks an index of a cluster, many queries a request (`_msearch`). The corpus is not read: see `forage index`.

    Word statistics are those of all shards (`dfs_query_then_fetch`), so that scores don't depend on where a passage
    lies; ties go to the earlier passage. An answer in which a shard is missing, or that ran out of time, is a failed
    search.

    Args:
        url: of the cluster, such as `http://localhost:9200`.
        index: name there.
        fields: searched; as `forage index` makes it, one field with title and text. Several are searched for the best.
        title_field: what is shown as title.
        text_field: what is shown as text.
        user_env: environment variable with the user's name, for Basic authentication; empty: none.
        password_env: environment variable with the password.
        api_key_env: environment variable with an API key, sent as `Authorization: ApiKey ...`.
        batch: queries a request.
        concurrency: requests at a time.
        request_timeout_s: seconds that one request may take.
        retries: further tries after connection errors, timeouts, 429 and 5xx, with growing waits.

    Raises:
        ConfigError: the URL is none, or a variable is not set.
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
        fields: tuple[str, ...] = ("contents",),
        title_field: str = "title",
        text_field: str = "text",
        user_env: str = "",
        password_env: str = "",
        api_key_env: str = "",
        batch: Annotated[int, Meta(ge=1)] = 64,
        concurrency: Annotated[int, Meta(ge=1)] = 8,
        request_timeout_s: Annotated[float, Meta(gt=0)] = 20.0,
        retries: Annotated[int, Meta(ge=0)] = 4,
    ) -> None:
        del passages
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
        self._path = f"/{quoted(index)}/_msearch"
        self._fields, self._title, self._text, self._batch = list(fields), title_field, text_field, batch

    async def search(self, queries: Sequence[str], k: int) -> list[Outcome]:
        """One outcome a query; up to k passages, best first."""
        batches = [queries[start : start + self._batch] for start in range(0, len(queries), self._batch)]
        answered = await together(self._ask(batch, k) for batch in batches)
        return [outcome for outcomes in answered for outcome in outcomes]

    async def _ask(self, queries: Sequence[str], k: int) -> list[Outcome]:
        asked = [row for row, query in enumerate(queries) if query.strip()]  # of no word, nothing is found
        outcomes: list[Outcome] = [[] for _ in queries]
        if not asked:
            return outcomes
        lines = [
            line for row in asked for line in ({"search_type": "dfs_query_then_fetch"}, self._body(queries[row], k))
        ]

        def read(reply: Any) -> list[Outcome]:
            if len(reply["responses"]) != len(asked):
                raise ValueError("not one response a query")
            return [
                self._outcome(response, queries[row], k)
                for row, response in zip(asked, reply["responses"], strict=True)
            ]

        try:
            found = await self._rest.call("POST", self._path, read, lines=lines, expected="answer to _msearch")
        except ServiceError as error:
            found = [self._failure(queries[row], str(error)) for row in asked]
        for row, outcome in zip(asked, found, strict=True):
            outcomes[row] = outcome
        return outcomes

    def _body(self, query: str, k: int) -> dict[str, Any]:
        text = encodable(query)
        match = {"match": {self._fields[0]: {"query": text}}}
        several = {"multi_match": {"query": text, "fields": self._fields}}
        return {
            "size": k,
            "query": match if len(self._fields) == 1 else several,
            "sort": [{"_score": "desc"}, {"row": {"order": "asc", "unmapped_type": "long"}}],
            "track_scores": True,
            "track_total_hits": False,
            "_source": [self._title, self._text],
        }

    def _outcome(self, response: Any, query: str, k: int) -> Outcome:
        """What was found for one query.

        Raises:
            ValueError, LookupError, TypeError: not as documented.
        """
        if error := response.get("error"):
            return self._failure(
                query, f"{error.get('type')}: {error.get('reason')}" if isinstance(error, dict) else str(error)
            )
        if failed := response["_shards"]["failed"]:
            return self._failure(query, f"{failed} of {response['_shards']['total']} shards did not answer")
        if response["timed_out"]:
            return self._failure(query, "the search ran out of time, and gave a part of its results")
        hits = response["hits"]["hits"]
        if len(hits) > k:
            raise ValueError("more hits than asked for")
        return [self._passage(hit) for hit in hits]

    def _passage(self, hit: Any) -> Passage:
        source = hit["_source"]
        title, text = source.get(self._title) or "", source[self._text]
        if not isinstance(title, str) or not isinstance(text, str):
            raise TypeError("a text that is none")
        return Passage(str(hit["_id"]), title, text, float(hit["_score"]))

    def _failure(self, query: str, cause: str) -> RetrieverError:
        return RetrieverError(f"the search for {query[:200]!r} failed at {self._rest.url}: {cause[:500]}")
