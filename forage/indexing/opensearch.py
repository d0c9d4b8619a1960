"""A corpus into OpenSearch or Elasticsearch, in bulk.

Bulk and k-NN fields as documented at https://docs.opensearch.org/latest/api-reference/document-apis/bulk/,
https://docs.opensearch.org/latest/mappings/supported-field-types/knn-vector/ and
https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from forage.clients.rest import Login, Rest, quoted
from forage.clients.service import Say, Sleep, again_in, quiet
from forage.concurrency import together
from forage.errors import ConfigError, DataError, ServiceError
from forage.indexing.embedded import NOTHING, Embedded, check_same, embedded
from forage.indexing.mappings import VECTOR, Graph, NearEngine, encoding_of, schema
from forage.types import Passage

ID_BYTES = 512  # of a document's id
NUMBER_BYTES = 22  # of a vector, as JSON writes it
_GRAPH = Graph()
REJECTED = 429  # of one document, when the engine's queue is full


class Document(NamedTuple):
    """A passage on its way."""

    row: int
    passage: Passage
    vector: list[float] | None

    def lines(self) -> Iterator[Any]:
        """Of a bulk request."""
        yield {"index": {"_id": self.passage.id}}
        said = {"title": self.passage.title, "text": self.passage.text, "row": self.row}
        yield said if self.vector is None else said | {VECTOR: self.vector}


Batch = list[Document]


async def load_opensearch(
    passages: Iterable[Passage],
    url: str,
    index: str,
    *,
    login: Login | None = None,
    settings: Mapping[str, Any] | None = None,
    vectors: Embedded | None = None,
    resume: bool = False,
    batch: int = 1000,
    batch_bytes: int = 5 * 2**20,
    concurrency: int = 2,
    timeout_s: float = 120.0,
    retries: int = 8,
    progress: Callable[[int], None] = lambda _: None,
    environment: Mapping[str, str] = os.environ,
    sleep: Sleep = asyncio.sleep,
    say: Say = quiet,
) -> int:
    """Make an index and write every passage into it, under its id. Holds `concurrency` batches at a time.

    Args:
        settings: of the index; None: `schema()`.
        vectors: of the passages, for an index that has a field for them.
        resume: go on with an index that exists: passages up to the first that it lacks are passed over.
        batch: passages a request, at most; and `batch_bytes` of them.
        progress: is told how many passages are in.
        say: is told what is waited for.

    Returns:
        How many passages there were.

    Raises:
        ConfigError: there is such an index, and it is not to be resumed, or its vectors are by another encoder.
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
        say=say,
    )
    await rest.check()
    path, encoding = f"/{quoted(index)}", vectors.encoding if vectors else None
    done = 0
    if not await _create(rest, path, index, settings or schema(encoding=encoding), resume):
        check_same(await encoding_of(rest, path, f"the index {index!r}"), encoding, f"the index {index!r}")
        done = await _present(rest, path)
    waiting = islice(enumerate(passages), done, None)
    groups = _grouped(_batches(waiting, vectors, batch, batch_bytes), concurrency)
    while group := await asyncio.to_thread(next, groups, None):  # reads and encodes
        await together(_send(rest, path, one, retries, sleep, say) for one in group)
        done += sum(map(len, group))
        progress(done)
    await _check_whole(rest, path, done, resume)
    return done


async def _create(rest: Rest, path: str, index: str, settings: Mapping[str, Any], resume: bool) -> bool:
    """Make the index; False where it is there already and is to be gone on with."""
    try:
        await rest.call("PUT", path, _any, body=settings)
    except ServiceError as error:
        if "resource_already_exists" not in str(error):
            raise
        if not resume:
            raise ConfigError(
                f"{rest.url} has an index {index!r} already; delete it, name another, or go on with it (resume)"
            ) from error
        return False
    return True


async def _present(rest: Rest, path: str) -> int:
    """How many of the first passages are there without a gap, by bisection."""
    await rest.call("POST", f"{path}/_refresh", _any)
    low, high = 0, await _count(rest, path)
    while low < high:
        middle = (low + high + 1) // 2
        if await _count(rest, path, {"query": {"range": {"row": {"lt": middle}}}}) == middle:
            low = middle
        else:
            high = middle - 1
    return low


async def _check_whole(rest: Rest, path: str, done: int, resume: bool) -> None:
    """Switch searching on, and count."""
    await rest.call("PUT", f"{path}/_settings", _any, body={"index": {"refresh_interval": None}})
    await rest.call("POST", f"{path}/_refresh", _any)
    found = await _count(rest, path)
    if found < done or (found > done and not resume):
        raise DataError(f"{rest.url}{path} holds {found:,} passages after {done:,} were loaded; do two share an id?")


async def _count(rest: Rest, path: str, body: Mapping[str, Any] | None = None) -> int:
    return await rest.call("POST", f"{path}/_count", lambda reply: int(reply["count"]), body=body or {})


async def _send(rest: Rest, path: str, batch: Batch, retries: int, sleep: Sleep, say: Say) -> None:
    """Write a batch; what the engine rejects because it is busy is sent again, after growing waits."""
    for tried in range(retries + 1):
        items = await rest.call(
            "POST",
            f"{path}/_bulk",
            _items,
            lines=chain.from_iterable(each.lines() for each in batch),
            expected="answer to _bulk",
        )
        if len(items) != len(batch):
            raise ServiceError(f"{rest.url}{path}/_bulk answered for {len(items)} of {len(batch)} passages")
        again = []
        for given, item in zip(batch, items, strict=True):
            if item["status"] == REJECTED:
                again.append(given)
            elif item["status"] >= 300:
                raise DataError(f"{rest.url}{path} refuses the passage {given.passage.id!r}: {json.dumps(item)[:300]}")
        if not again:
            return
        batch = again
        if tried < retries:
            wait_s = min(0.5 * 2**tried, 60.0)
            said = f"{rest.url}{path} rejected {len(batch)} passages, it is too busy"
            say(f"{said} {again_in(tried, retries, wait_s)}")
            await sleep(wait_s)
    raise ServiceError(f"{rest.url}{path} rejected {len(batch)} passages {retries + 1} times: it is too busy")


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


def _batches(
    passages: Iterable[tuple[int, Passage]], vectors: Embedded | None, most: int, most_bytes: int
) -> Iterator[Batch]:
    """Passages in batches, with their vectors where there are to be any."""
    batch: list[tuple[int, Passage]] = []
    size, more = 0, 100 + (NUMBER_BYTES * vectors.encoding.dimensions if vectors else 0)
    for row, passage in passages:
        if len(passage.id.encode(errors="replace")) > ID_BYTES:
            raise DataError(f"the id {passage.id[:60]!r}... is longer than {ID_BYTES} bytes, the most the engine takes")
        needs = len(passage.title) + len(passage.text) + len(passage.id) + more
        if batch and (len(batch) == most or size + needs > most_bytes):
            yield _documents(batch, vectors)
            batch, size = [], 0
        batch.append((row, passage))
        size += needs
    if batch:
        yield _documents(batch, vectors)


def _documents(batch: Sequence[tuple[int, Passage]], vectors: Embedded | None) -> Batch:
    if vectors is None:
        return [Document(row, passage, None) for row, passage in batch]
    found = vectors.vectors(batch[0][0], [passage for _, passage in batch]).tolist()
    return [Document(row, passage, vector) for (row, passage), vector in zip(batch, found, strict=True)]


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
        encoder: transformer, or `package.module:Class`: encode every passage, for search by meaning (OpenSearch only);
            empty: by words alone.
        encoder_options: of the encoder, such as `{path = "intfloat/e5-small-v2"}`.
        vectors: an index folder of kind dense or hybrid with the same passages, whose vectors are taken.
        title: encode passages with their title before the text.
        graph_engine: faiss or lucene: what finds the nearest vectors.
        graph_m: neighbours of a passage in the graph.
        graph_ef_construction: passages that are looked at for a new one's neighbours.
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
        encoder: str = "",
        encoder_options: Mapping[str, Any] = NOTHING,
        vectors: Path | None = None,
        title: bool = True,
        graph_engine: NearEngine = _GRAPH.engine,
        graph_m: Annotated[int, Meta(ge=2, le=100)] = _GRAPH.m,
        graph_ef_construction: Annotated[int, Meta(ge=1)] = _GRAPH.ef_construction,
        user_env: str = "",
        password_env: str = "",
        api_key_env: str = "",
        batch: Annotated[int, Meta(ge=1)] = 1000,
        concurrency: Annotated[int, Meta(ge=1)] = 2,
    ) -> None:
        self._url, self._index, self._batch, self._concurrency = url, index, batch, concurrency
        self._vectors = embedded(encoder, encoder_options, vectors, title=title)
        graph = Graph(engine=graph_engine, m=graph_m, ef_construction=graph_ef_construction)
        if not self._vectors and (graph != _GRAPH or not title):
            raise ConfigError("a graph and title= are for vectors: name an encoder, or vectors")
        encoding = self._vectors.encoding if self._vectors else None
        self._settings = schema(k1=k1, b=b, analyser=analyser, shards=shards, graph=graph, encoding=encoding)
        self._login = Login(user_env, password_env, api_key_env, prefix="ApiKey ")

    async def load(
        self, passages: Iterable[Passage], *, resume: bool, progress: Callable[[int], None], say: Say
    ) -> int:
        """See `load_opensearch`."""
        return await load_opensearch(
            passages,
            self._url,
            self._index,
            login=self._login,
            settings=self._settings,
            vectors=self._vectors,
            resume=resume,
            batch=self._batch,
            concurrency=self._concurrency,
            progress=progress,
            say=say,
        )
