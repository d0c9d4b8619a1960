"""The best passages of a search, put in order anew by a reranker that reads them with the query."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from forage.errors import ConfigError, RetrieverError
from forage.interfaces import Index, Reranker
from forage.options import Setting, arguments, convert, undotted
from forage.registry import find
from forage.retrievers.gather import as_lookup
from forage.retrievers.indexed import open_index
from forage.types import Passage

Outcome = list[Passage] | RetrieverError
Positive = Annotated[int, Meta(ge=1)]
NOTHING: Mapping[str, Any] = MappingProxyType({})
DEPTH = 30
PREFIX = "reranker."


class RerankedIndex:
    """An index whose best passages a reranker puts in order.

    Args:
        index: finds them.
        reranker: scores each with its query.
        depth: how many are read; k at least.
    """

    def __init__(self, index: Index, reranker: Reranker, *, depth: int = DEPTH) -> None:
        self._index, self._reranker, self._depth = index, reranker, depth
        self.batch_size = int(getattr(reranker, "batch_size", getattr(index, "batch_size", 1)))

    def __len__(self) -> int:
        return len(self._index)  # type: ignore[arg-type]  # those of index folders have a length

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best k passages of each query, best first, with the reranker's scores.

        Raises:
            ConfigError: the index can't serve this k.
            RetrieverError: the reranker gave something else than a number for each pair.
        """
        found = self._index.lookup(queries, depth_of(self._index, self._depth, k))
        return reranked(self._reranker, queries, found, k)  # type: ignore[return-value]  # no failures go in


class RerankedRetriever:
    """Another search engine, whose best passages a reranker puts in order.

    Args:
        first: the engine, by the name that it has as a search.kind.
        first_options: its options.
        reranker: cross_encoder, or `package.module:Class`.
        reranker_options: its options, such as `{path = "models/reranker"}`.
        depth: passages of the first engine that are read; search.k at least.

    Raises:
        ConfigError: there is no such engine or reranker, or its options are not usable.
    """

    def __init__(
        self,
        passages: Iterable[Passage] = (),
        *,
        first: str,
        first_options: Mapping[str, Any] = NOTHING,
        reranker: str = "cross_encoder",
        reranker_options: Mapping[str, Any] = NOTHING,
        depth: Positive = DEPTH,
    ) -> None:
        own, others = _options("search", first, first_options), _options("reranker", reranker, reranker_options)
        self._first = find("search", first)(passages, **own)
        self._lookup, self._depth = as_lookup(self._first), depth
        self._reranker: Reranker = find("reranker", reranker)(**others)
        self.in_process = hasattr(self._first, "lookup")
        self.bounds_itself = bool(getattr(self._first, "bounds_itself", False))

    @staticmethod
    def check_options(given: Mapping[str, Any]) -> dict[str, Any]:
        """The options with those of engine and reranker checked."""
        _options("search", given["first"], given["first_options"])
        _options("reranker", given["reranker"], given["reranker_options"])
        return dict(given)

    async def search(self, queries: Sequence[str], k: int) -> list[Outcome]:
        """One outcome a query; a failure of the first engine stays that.

        Raises:
            ConfigError: the first engine can't serve this k.
            RetrieverError: the reranker gave something else than a number for each pair.
        """
        found = self._lookup(queries, depth_of(self._first, self._depth, k))
        if inspect.isawaitable(found):
            found = await found
        if self.in_process:  # then the caller counts on an answer at once
            return reranked(self._reranker, queries, found, k)
        return await asyncio.to_thread(reranked, self._reranker, queries, found, k)


def open_searcher(folder: Path, options: Mapping[str, Any] = NOTHING) -> Index:
    """An index folder with options of its kind, and with a reranker where there are options `reranker.*`.

    Args:
        folder: the index.
        options: of the reader (`encoder.device` is the option `encoder_device`), and `reranker.kind`, `reranker.depth`
            and the reranker's own.

    Raises:
        IndexFolderError: the index can't be opened.
        ConfigError: an option is unknown, or of another type.
    """
    own = {name.removeprefix(PREFIX): value for name, value in options.items() if name.startswith(PREFIX)}
    others = undotted({name: value for name, value in options.items() if not name.startswith(PREFIX)})
    index = open_index(folder, **others)
    if not own:
        return index
    kind = convert("reranker.kind", _setting(own.pop("kind", "cross_encoder")), str)
    depth = convert("reranker.depth", _setting(own.pop("depth", DEPTH)), Positive)
    return RerankedIndex(index, find("reranker", kind)(**arguments("reranker", kind, own)), depth=depth)


def reranked(reranker: Reranker, queries: Sequence[str], found: Sequence[Outcome], k: int) -> list[Outcome]:
    """The k best passages of each query by the reranker's scores; ties stay in the order in which they were found.

    Each query is paired with its own passages only.

    Args:
        reranker: is called once.
        queries: what was asked.
        found: the passages of each, or a failure, which stays.
        k: how many are kept.

    Raises:
        RetrieverError: the reranker gave something else than a finite number for each pair.
    """
    lists = [[] if isinstance(outcome, RetrieverError) else outcome for outcome in found]
    pairs = [(query, passage) for query, passages in zip(queries, lists, strict=True) for passage in passages]
    scores = iter(_checked(reranker.score(pairs), pairs) if pairs else [])
    ordered = [_ordered([Passage(p.id, p.title, p.text, next(scores)) for p in passages], k) for passages in lists]
    return [
        outcome if isinstance(outcome, RetrieverError) else best for outcome, best in zip(found, ordered, strict=True)
    ]


def _ordered(passages: list[Passage], k: int) -> list[Passage]:
    return sorted(passages, key=lambda passage: -passage.score)[:k]


def _checked(scores: Any, pairs: Sequence[tuple[str, Passage]]) -> list[float]:
    found = np.asarray(scores, np.float64)
    if found.shape != (len(pairs),):
        raise RetrieverError(f"the reranker gave {found.shape} scores for {len(pairs)} pairs of query and passage")
    if len(wrong := np.flatnonzero(~np.isfinite(found))):
        query, passage = pairs[wrong[0]]
        raise RetrieverError(
            f"the reranker gave {found[wrong[0]]} for the passage {passage.id!r} and the query {query[:80]!r}"
        )
    checked: list[float] = found.tolist()
    return checked


def depth_of(first: Any, depth: int, k: int) -> int:
    """How many passages to ask for: no more than there are, unless k is."""
    return max(k, min(depth, len(first))) if isinstance(first, Sized) else max(k, depth)


def _options(part: str, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return arguments(part, kind, given)
    except ConfigError as error:
        name = "first_options" if part == "search" else "reranker_options"
        raise ConfigError(f"search.{name}: {error}") from None


def _setting(value: Any) -> Setting:
    return value if isinstance(value, Setting) else Setting(value, "")
