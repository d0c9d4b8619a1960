"""A corpus into OpenSearch or Elasticsearch, in bulk.

Bulk, msearch and mappings as documented at https://docs.opensearch.org/latest/api-reference/document-apis/bulk/ and
https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any

from msgspec import Meta

from forage.clients.rest import Login, Rest, quoted
from forage.clients.service import Sleep
from forage.concurrency import together
from forage.errors import ConfigError, DataError, ServiceError
from forage.types import Passage

ID_BYTES = 512  # of a document's id
REJECTED = 429  # of one document, when the engine's queue is full
Batch = list[tuple[int, Passage]]


def schema(*, k1: float = 0.9, b: float = 0.4, analyser: str = "english", shards: int = 1) -> dict[str, Any]:
    """Settings and mappings of an index that searches title and text as one field, `contents`, by BM25.

    `row` is the passage's place in the corpus, by which ties are broken. Searching is switched on (`refresh_interval`)
    once everything is loaded.
    """
    stored = {"type": "text", "index": False, "copy_to": "contents"}
    fields = {
        "title": stored,
        "text": stored,
        "contents": {"type": "text", "analyzer": analyser},
        "row": {"type": "long"},
    }
    similarity = {"default": {"type": "BM25", "k1": k1, "b": b}}
    index = {"number_of_shards": shards, "refresh_interval": "-1", "similarity": similarity}
    return {"settings": {"index": index}, "mappings": {"dynamic": False, "properties": fields}}


async def load_opensearch(
    passages: Iterable[Passage],
    url: str,
    index: str,
    *,
    login: Login | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    batch: int = 1000,
    batch_bytes: int = 5 * 2**20,
    concurrency: int = 2,
    timeout_s: float = 120.0,
    retries: int = 8,
    progress: Callable[[int], None] = lambda _: None,
    environment: Mapping[str, str] = os.environ,
    sleep: Sleep = asyncio.sleep,
) -> int:
    """Make an index and write every passage into it, under its id. Holds `concurrency` batches at a time.

    Args:
        settings: of the index; None: `schema()`.
        resume: go on with an index that exists; what is in it already is written again.
        batch: passages a request, at most; and `batch_bytes` of them.
        progress: is told how many passages are in.

    Returns:
        How many passages there were.

    Raises:
        ConfigError: there is such an index, and it is not to be resumed.
        DataError: the engine refuses a passage, or has fewer than it was given in the end.
        ServiceError: the engine can't be reached, or is too busy after all tries.
    """
    rest = Rest(
        url,
        login or Login(prefix="ApiKey "),
        extra="opensearch",
        timeout_s=timeout_s,
        retries=retries,
        concurrency=concurrency,
        environment=environment,
        sleep=sleep,
    )
    path = f"/{quoted(index)}"
    await _create(rest, path, index, settings or schema(), resume)
    done = 0
    for group in _grouped(_batches(passages, batch, batch_bytes), concurrency):
        await together(_send(rest, path, one, retries, sleep) for one in group)
        done += sum(map(len, group))
        progress(done)
    await rest.call("PUT", f"{path}/_settings", _any, body={"index": {"refresh_interval": None}})
    await rest.call("POST", f"{path}/_refresh", _any)
    found = await rest.call("GET", f"{path}/_count", lambda reply: int(reply["count"]))
    if found < done or (found > done and not resume):
        raise DataError(f"{rest.url}{path} holds {found:,} passages after {done:,} were loaded; do two share an id?")
    return done


async def _create(rest: Rest, path: str, index: str, settings: Mapping[str, Any], resume: bool) -> None:
    try:
        await rest.call("PUT", path, _any, body=settings)
    except ServiceError as error:
        if "resource_already_exists" not in str(error):
            raise
        if not resume:
            raise ConfigError(
                f"{rest.url} has an index {index!r} already; delete it, name another, or go on with it (resume)"
            ) from error


async def _send(rest: Rest, path: str, batch: Batch, retries: int, sleep: Sleep) -> None:
    """Write a batch; what the engine rejects because it is busy is sent again, after growing waits."""
    for tried in range(retries + 1):
        items = await rest.call("POST", f"{path}/_bulk", _items, lines=_lines(batch), expected="answer to _bulk")
        if len(items) != len(batch):
            raise ServiceError(f"{rest.url}{path}/_bulk answered for {len(items)} of {len(batch)} passages")
        again = []
        for given, item in zip(batch, items, strict=True):
            if item["status"] == REJECTED:
                again.append(given)
            elif item["status"] >= 300:
                raise DataError(f"{rest.url}{path} refuses the passage {given[1].id!r}: {json.dumps(item)[:300]}")
        if not again:
            return
        batch = again
        if tried < retries:
            await sleep(min(0.5 * 2**tried, 60.0))
    raise ServiceError(f"{rest.url}{path} rejected {len(batch)} passages {retries + 1} times: it is too busy")


def _lines(batch: Batch) -> Iterator[Any]:
    for row, passage in batch:
        yield {"index": {"_id": passage.id}}
        yield {"title": passage.title, "text": passage.text, "row": row}


def _items(reply: Any) -> list[dict[str, Any]]:
    """What became of each passage.

    Raises:
        LookupError, TypeError: not as documented.
    """
    items = [item["index"] for item in reply["items"]]
    if not all(isinstance(item["status"], int) for item in items):
        raise TypeError("a status that is no number")
    return items


def _any(reply: Any) -> Any:
    return reply if reply is not None else {}


def _batches(passages: Iterable[Passage], most: int, most_bytes: int) -> Iterator[Batch]:
    batch: Batch = []
    size = 0
    for row, passage in enumerate(passages):
        if len(passage.id.encode(errors="replace")) > ID_BYTES:
            raise DataError(f"the id {passage.id[:60]!r}... is longer than {ID_BYTES} bytes, the most the engine takes")
        needs = len(passage.title) + len(passage.text) + len(passage.id) + 100
        if batch and (len(batch) == most or size + needs > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append((row, passage))
        size += needs
    if batch:
        yield batch


def _grouped(batches: Iterator[Batch], count: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == count:
            yield group
            group = []
    if group:
        yield group


class OpenSearchLoader:
    """Loads a corpus into OpenSearch or Elasticsearch (`forage load`).

    Args:
        url: of the cluster, such as `http://localhost:9200`.
        index: name to make there.
        analyser: of the cluster, by which title and text become words; "english" stems and leaves stopwords out.
        k1: how slowly repetitions of a word stop counting.
        b: how far long passages are held back, from 0 (not at all) to 1.
        shards: pieces that the cluster cuts the index into.
        user_env: environment variable with the user's name, for Basic authentication; empty: none.
        password_env: environment variable with the password.
        api_key_env: environment variable with an API key.
        batch: passages a request.
        concurrency: requests at a time.
    """

    def __init__(
        self,
        *,
        url: str,
        index: str,
        analyser: str = "english",
        k1: Annotated[float, Meta(ge=0)] = 0.9,
        b: Annotated[float, Meta(ge=0, le=1)] = 0.4,
        shards: Annotated[int, Meta(ge=1)] = 1,
        user_env: str = "",
        password_env: str = "",
        api_key_env: str = "",
        batch: Annotated[int, Meta(ge=1)] = 1000,
        concurrency: Annotated[int, Meta(ge=1)] = 2,
    ) -> None:
        self._url, self._index, self._batch, self._concurrency = url, index, batch, concurrency
        self._settings = schema(k1=k1, b=b, analyser=analyser, shards=shards)
        self._login = Login(user_env, password_env, api_key_env, prefix="ApiKey ")

    async def load(self, passages: Iterable[Passage], *, resume: bool, progress: Callable[[int], None]) -> int:
        """See `load_opensearch`."""
        return await load_opensearch(
            passages,
            self._url,
            self._index,
            login=self._login,
            settings=self._settings,
            resume=resume,
            batch=self._batch,
            concurrency=self._concurrency,
            progress=progress,
        )
