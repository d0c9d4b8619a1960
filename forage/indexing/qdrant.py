"""A corpus into Qdrant, in bulk, with vectors made on the way.

Collections and points as documented at https://api.qdrant.tech/api-reference.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Annotated, Any, Literal

from msgspec import Meta

from forage.clients.rest import Login, Rest, quoted
from forage.clients.service import Sleep
from forage.errors import ConfigError, DataError
from forage.options import arguments
from forage.registry import find
from forage.types import Passage

Distance = Literal["Cosine", "Dot", "Euclid"]
NOTHING: Mapping[str, Any] = MappingProxyType({})


async def load_qdrant(
    passages: Iterable[Passage],
    encode: Callable[[Sequence[str]], Any],
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
) -> int:
    """Make a collection and write every passage into it, under its place in the corpus. Holds two batches at a time.

    Args:
        encode: texts (the title before the text) to an array [texts, dimensions] of floats.
        distance: by which vectors are compared; Dot where the encoder normalises.
        resume: go on with a collection that exists: as many passages as it holds are passed over.
        batch: passages that are encoded and sent together.
        progress: is told how many passages are in.

    Returns:
        How many passages there were.

    Raises:
        ConfigError: there is such a collection, and it is not to be resumed.
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
    )
    path = f"/collections/{quoted(collection)}"
    exists = await rest.call("GET", f"{path}/exists", lambda reply: bool(reply["result"]["exists"]))
    if exists and not resume:
        raise ConfigError(
            f"{rest.url} has a collection {collection!r} already; delete it, name another, or go on with it (resume)"
        )
    done = await _count(rest, path) if exists else 0
    waiting = islice(iter(passages), done, None)
    sending: asyncio.Task[Any] | None = None
    try:
        while given := list(islice(waiting, batch)):
            rows = await asyncio.to_thread(vectors, encode, [_text(passage) for passage in given])
            if not exists:
                shape = {"vectors": {"size": len(rows[0]), "distance": distance, "on_disk": True}}
                exists = await rest.call("PUT", path, _ok, body=shape)
            if sending:  # while this batch was encoded
                await sending
                progress(done)
            body = {"points": list(_points(done, given, rows))}
            sending = asyncio.create_task(rest.call("PUT", f"{path}/points", _ok, body=body, params={"wait": "true"}))
            done += len(given)
        if sending:
            await sending
    finally:
        if sending:
            sending.cancel()
    progress(done)
    if done and (found := await _count(rest, path)) != done:
        raise DataError(f"{rest.url}{path} holds {found:,} passages after {done:,} were loaded")
    return done


def vectors(encode: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> list[list[float]]:
    """One vector a text.

    Raises:
        DataError: the encoder gave another number of them, of different lengths, or some that are not finite.
    """
    import numpy as np

    array = np.asarray(encode(texts), dtype=np.float32)
    if array.ndim != 2 or len(array) != len(texts) or not array.shape[1]:
        raise DataError(f"the encoder gave an array of shape {list(array.shape)} for {len(texts)} texts")
    if not np.isfinite(array).all():
        raise DataError("the encoder gave a vector that is not finite")
    rows: list[list[float]] = array.tolist()
    return rows


def _text(passage: Passage) -> str:
    return f"{passage.title} {passage.text}".strip()


def _points(start: int, passages: Sequence[Passage], rows: Sequence[Sequence[float]]) -> Iterator[dict[str, Any]]:
    for row, (passage, vector) in enumerate(zip(passages, rows, strict=True), start):
        payload = {"id": passage.id, "title": passage.title, "text": passage.text}
        yield {"id": row, "vector": vector, "payload": payload}


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
        encoder: `package.module:Class` with `encode(texts)`; where it has `encode_passages(texts)`, that is asked.
        encoder_options: of that class.
        distance: by which vectors are compared; Dot where the encoder normalises.
        api_key_env: environment variable with the API key; empty: none.
        batch: passages that are encoded and sent together.
    """

    def __init__(
        self,
        *,
        url: str,
        collection: str,
        encoder: str,
        encoder_options: Mapping[str, Any] = NOTHING,
        distance: Distance = "Dot",
        api_key_env: str = "",
        batch: Annotated[int, Meta(ge=1)] = 256,
    ) -> None:
        self._url, self._collection, self._distance, self._batch = url, collection, distance, batch
        self._login = Login(api_key_env=api_key_env, header="api-key")
        made = find("encoder", encoder)(**arguments("encoder", encoder, encoder_options))
        self._encode = getattr(made, "encode_passages", made.encode)

    async def load(self, passages: Iterable[Passage], *, resume: bool, progress: Callable[[int], None]) -> int:
        """See `load_qdrant`."""
        return await load_qdrant(
            passages,
            self._encode,
            self._url,
            self._collection,
            distance=self._distance,
            login=self._login,
            resume=resume,
            batch=self._batch,
            progress=progress,
        )
