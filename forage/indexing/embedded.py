"""Passages with their vectors, on the way into an engine elsewhere: encoded now, or taken from an index folder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from forage.clients.service import encodable
from forage.errors import CheckpointError, ConfigError, DataError, IndexFolderError
from forage.indexing.encoding import Encoding, NamedEncoder, open_encoder
from forage.indexing.folder import read_info
from forage.indexing.store import PassageStore
from forage.indexing.vectors import open_vectors
from forage.options import arguments
from forage.types import Passage

NOTHING: Mapping[str, Any] = MappingProxyType({})
Vectors = NDArray[np.float32]


class Embedded(Protocol):
    """Gives passages their vectors."""

    @property
    def encoding(self) -> Encoding:
        """What an engine keeps of the encoder."""
        ...

    def vectors(self, start: int, passages: Sequence[Passage]) -> Vectors:
        """[N, dimensions] of passages that stand one after another in the corpus, from row `start` on.

        Raises:
            DataError: there are none for these passages.
        """
        ...


class EncodedNow:
    """Vectors by an encoder.

    Args:
        encoder: makes them.
        title: whether passages are read with their title before the text.
    """

    def __init__(self, encoder: NamedEncoder, *, title: bool = True) -> None:
        self._encoder = encoder
        self.encoding = encoder.encoding(title=title)

    def vectors(self, start: int, passages: Sequence[Passage]) -> Vectors:
        del start
        return self._encoder.passages([self.encoding.text(passage) for passage in passages])


class EncodedBefore:
    """Vectors of an index folder, for the very passages that it holds.

    Args:
        folder: an index of kind dense or hybrid.

    Raises:
        IndexFolderError: it is no index, has no vectors, or they can't be read.
    """

    def __init__(self, folder: Path) -> None:
        info = read_info(folder)
        said = info.options.get("dense", info.options)
        try:
            self.encoding = msgspec.convert(said["encoder"], Encoding)
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise IndexFolderError(f"{folder} is an index of the kind {info.kind!r} and holds no vectors") from error
        self._folder, self._store = folder, PassageStore(folder)
        self._vectors = open_vectors(folder, len(self._store), self.encoding.dimensions)

    def vectors(self, start: int, passages: Sequence[Passage]) -> Vectors:
        end = start + len(passages)
        for row, (passage, held) in enumerate(zip(passages, self._store.read(start, end), strict=False), start):
            if passage != held:
                raise DataError(
                    f"{self._folder} has no vector for the passage {passage.id!r}: its {row}th is {held.id!r}"
                )
        if end > len(self._store):
            raise DataError(f"{self._folder} has {len(self._store):,} vectors, and the corpus has more passages")
        return self._vectors[start:end].astype(np.float32)


def embedded(
    encoder: str, encoder_options: Mapping[str, Any], vectors: Path | None, *, title: bool = True
) -> Embedded | None:
    """Where the vectors of a load come from; None: there are to be none.

    Raises:
        ConfigError: both an encoder and vectors are named, or the encoder can't be made.
        IndexFolderError: see `EncodedBefore`.
    """
    if vectors is not None:
        if encoder or encoder_options or not title:
            raise ConfigError("vectors come from an index folder, which knows its encoder: leave encoder and title out")
        return EncodedBefore(vectors)
    if not encoder:
        if encoder_options:
            raise ConfigError("encoder_options are given, and no encoder: name it, such as encoder=transformer")
        return None
    return EncodedNow(NamedEncoder(encoder, encoder_options), title=title)


def what_is_kept(encoding: Encoding) -> dict[str, Any]:
    """What an engine's index is told of its encoder."""
    return {"forage": {"encoder": msgspec.to_builtins(encoding)}}


def kept_encoding(said: Any, where: str) -> Encoding | None:
    """What an engine's index says of its encoder; None where it says nothing.

    Raises:
        ConfigError: it says what this Forage does not understand.
    """
    if not isinstance(said, Mapping) or "forage" not in said:
        return None
    try:
        return msgspec.convert(said["forage"]["encoder"], Encoding)
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{where} does not say how it was encoded ({error}): load it again") from error


def check_same(kept: Encoding | None, encoding: Encoding | None, where: str) -> None:
    """Refuse to go on with an index whose vectors are of another encoder.

    Raises:
        ConfigError: they are.
    """
    ours, theirs = (each and msgspec.structs.replace(each, options={}) for each in (encoding, kept))
    if ours != theirs:
        of = "no vectors" if kept is None else f"vectors by {kept.kind} with {kept.settings or kept.dimensions}"
        raise ConfigError(f"{where} has {of}, and what is to be loaded has others: load it anew, under another name")


class QueryEncoder:
    """The encoder that an engine's index was loaded with, made when it is first needed.

    Args:
        kind: of the encoder; empty: as the index says.
        options: such as where the model lies now.

    Raises:
        ConfigError: there is no such encoder, or it has no such option.
    """

    def __init__(self, kind: str = "", options: Mapping[str, Any] = NOTHING) -> None:
        if kind:
            arguments("encoder", kind, options, complete=False)
        self._kind, self._options = kind, options
        self._made: NamedEncoder | None = None
        self._lock = threading.Lock()  # searches that begin at once wait for one model

    async def encode(
        self, texts: Sequence[str], kept: Callable[[], Awaitable[Encoding | None]], where: str
    ) -> list[list[float]]:
        """A vector each.

        Args:
            kept: asks what the index says of its encoder.
            where: the index, for messages.

        Raises:
            ConfigError: the index was loaded with another one, or says nothing and none is named; or it can't be made.
            DataError: it gave something else than vectors.
        """
        if self._made is None:
            await asyncio.to_thread(self._make, await kept(), where)
        return await asyncio.to_thread(self._vectors, [encodable(text) for text in texts])

    def _make(self, kept: Encoding | None, where: str) -> None:
        with self._lock:
            if self._made is None:
                self._made = self._open(kept, where)

    def _vectors(self, texts: Sequence[str]) -> list[list[float]]:
        assert self._made is not None
        found: list[list[float]] = self._made.queries(texts).tolist()
        return found

    def _open(self, kept: Encoding | None, where: str) -> NamedEncoder:
        if kept is None:
            if not self._kind:
                raise ConfigError(f"{where} does not say how it was encoded: name its encoder (search.encoder)")
            return NamedEncoder(self._kind, self._options)
        if self._kind not in ("", kept.kind):
            raise ConfigError(f"{where} was encoded by {kept.kind!r}, not by search.encoder = {self._kind!r}")
        try:
            return open_encoder(kept, where, self._options, setting="search.encoder_options.path")
        except (IndexFolderError, CheckpointError) as error:  # nothing that asking again would mend
            raise ConfigError(str(error)) from error
