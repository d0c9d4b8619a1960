"""A corpus into Qdrant, in bulk, with vectors made on the way or before.

Collections, their metadata (since 1.16) and points as documented at https://api.qdrant.tech/api-reference.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from forage.clients.rest import Login, Rest, quoted
from forage.clients.service import Say, Sleep, quiet
from forage.errors import ConfigError, DataError
from forage.indexing.embedded import NOTHING, Embedded, check_same, embedded, kept_encoding, what_is_kept
from forage.indexing.encoding import Encoding
from forage.types import Passage

Distance = Literal["Cosine", "Dot", "Euclid"]


async def load_qdrant(
    passages: Iterable[Passage],
    vectors: Embedded,
    url: str,
    collection: str,
    *,
    distance: Distance = "Dot",
    login: Login | None = None,
    resume: bool = False,
    batch: int = 256,
    timeout_s: float = 120.0,
    retries: int = 8,
    progress: Callable[[int], None] = lambda _: None,
    environment: Mapping[str, str] = os.environ,
    sleep: Sleep = asyncio.sleep,
    say: Say = quiet,
) -> int:
    """Make a collection and write every passage into it, under its place in the corpus. Holds two batches at a time.

    Args:
        vectors: of the passages.
        distance: by which vectors are compared; of those of length 1, Dot is the cosine.
        resume: go on with a collection that exists: as many passages as it holds are passed over.
        batch: passages that are encoded and sent together.
        progress: is told how many passages are in.
        say: is told what is waited for.

    Returns:
        How many passages there were.

    Raises:
        ConfigError: there is such a collection, and it is not to be resumed, or is of another encoder.
        DataError: vectors that are none, or the collection has another number of passages in the end.
        ServiceError: the engine can't be reached, or refuses.
    """
    rest = Rest(
        url,
        login or Login(header="api-key"),
        extra="qdrant",
        timeout_s=timeout_s,
        retries=retries,
        concurrency=2,
        environment=environment,
        sleep=sleep,
        say=say,
    )
    await rest.check()
    path = f"/collections/{quoted(collection)}"
    if await rest.call("GET", f"{path}/exists", lambda reply: bool(reply["result"]["exists"])):
        done = await _go_on(rest, path, collection, vectors.encoding, resume)
    else:
        await rest.call("PUT", path, _ok, body=_shape(vectors.encoding, distance))
        done = 0
    done = await _send_all(rest, path, passages, vectors, done, batch, progress)
    if (found := await _count(rest, path)) != done:
        raise DataError(f"{rest.url}{path} holds {found:,} passages after {done:,} were loaded")
    return done


async def encoding_of(rest: Rest, path: str, where: str) -> Encoding | None:
    """What a collection says of its encoder; None where it says nothing (Qdrant before 1.16, or loaded otherwise).

    Raises:
        ServiceError: there is no such collection, or no answer.
        ConfigError: it says what this Forage does not understand.
    """

    def read(reply: Mapping[str, Any]) -> dict[str, Any]:
        said: dict[str, Any] = reply["result"]["config"].get("metadata") or {}
        return said

    return kept_encoding(await rest.call("GET", path, read, expected="description of a collection"), where)


def _shape(encoding: Encoding, distance: Distance) -> dict[str, Any]:
    size = {"size": encoding.dimensions, "distance": distance, "on_disk": True}
    return {"vectors": size, "metadata": what_is_kept(encoding)}


async def _go_on(rest: Rest, path: str, collection: str, encoding: Encoding, resume: bool) -> int:
    """How many passages are there already."""
    if not resume:
        raise ConfigError(
            f"{rest.url} has a collection {collection!r} already; delete it, name another, or go on with it (resume)"
        )
    where = f"the collection {collection!r}"
    if kept := await encoding_of(rest, path, where):
        check_same(kept, encoding, where)
    return await _count(rest, path)


async def _send_all(
    rest: Rest,
    path: str,
    passages: Iterable[Passage],
    vectors: Embedded,
    done: int,
    batch: int,
    progress: Callable[[int], None],
) -> int:
    """Send what stands behind the first `done`; each batch while the next is encoded. How many there are then."""
    batches = _batches(islice(iter(passages), done, None), vectors, done, batch)
    sending: asyncio.Task[Any] | None = None
    try:
        while points := await asyncio.to_thread(next, batches, None):  # reads and encodes
            if sending:
                await sending
                progress(done)
            sending = asyncio.create_task(_send(rest, path, points))
            done += len(points)
        if sending:
            await sending
    finally:
        if sending:
            sending.cancel()
    progress(done)
    return done


async def _send(rest: Rest, path: str, points: list[dict[str, Any]]) -> None:
    await rest.call("PUT", f"{path}/points", _ok, body={"points": points}, params={"wait": "true"})


def _batches(passages: Iterator[Passage], vectors: Embedded, start: int, size: int) -> Iterator[list[dict[str, Any]]]:
    while given := list(islice(passages, size)):
        yield _points(start, given, vectors.vectors(start, given).astype(np.float32).tolist())
        start += len(given)


def _points(start: int, passages: Sequence[Passage], rows: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    payloads = ({"id": passage.id, "title": passage.title, "text": passage.text} for passage in passages)
    return [
        {"id": row, "vector": vector, "payload": payload}
        for row, (payload, vector) in enumerate(zip(payloads, rows, strict=True), start)
    ]


async def _count(rest: Rest, path: str) -> int:
    return await rest.call(
        "POST", f"{path}/points/count", lambda reply: int(reply["result"]["count"]), body={"exact": True}
    )


def _ok(reply: Any) -> bool:
    if reply["status"] != "ok":
        raise ValueError("not ok")
    return True


class QdrantLoader:
    """Loads a corpus into Qdrant (`forage load`).

    Args:
        url: of the cluster, such as `http://localhost:6333`.
        collection: name to make there.
        encoder: transformer, or `package.module:Class`.
        encoder_options: of the encoder, such as `{path = "intfloat/e5-small-v2"}`.
        vectors: an index folder of kind dense or hybrid with the same passages, whose vectors are taken in place of
            encoding.
        title: encode passages with their title before the text.
        distance: by which vectors are compared; of those of length 1, Dot is the cosine.
        api_key_env: environment variable with the API key; empty: none.
        batch: passages that are encoded and sent together.

    Raises:
        ConfigError: neither an encoder nor vectors are named, or both are.
    """

    def __init__(
        self,
        *,
        url: str,
        collection: str,
        encoder: str = "",
        encoder_options: Mapping[str, Any] = NOTHING,
        vectors: Path | None = None,
        title: bool = True,
        distance: Distance = "Dot",
        api_key_env: str = "",
        batch: Annotated[int, Meta(ge=1)] = 256,
    ) -> None:
        self._url, self._collection, self._distance, self._batch = url, collection, distance, batch
        self._login = Login(api_key_env=api_key_env, header="api-key")
        found = embedded(encoder, encoder_options, vectors, title=title)
        if found is None:
            raise ConfigError("Qdrant holds vectors: name an encoder (encoder=), or an index folder (vectors=)")
        self._vectors = found

    async def load(
        self, passages: Iterable[Passage], *, resume: bool, progress: Callable[[int], None], say: Say
    ) -> int:
        """See `load_qdrant`."""
        return await load_qdrant(
            passages,
            self._vectors,
            self._url,
            self._collection,
            distance=self._distance,
            login=self._login,
            resume=resume,
            batch=self._batch,
            progress=progress,
            say=say,
        )
