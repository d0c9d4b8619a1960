"""Several search engines asked at once, and their rankings fused by the passages' ids."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from itertools import tee
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from forage.concurrency import together
from forage.errors import ConfigError, RetrieverError
from forage.options import arguments
from forage.registry import find, nearest
from forage.retrievers.fusion import reciprocal_ranks
from forage.retrievers.gather import as_lookup
from forage.retrievers.rerank import depth_of
from forage.types import Passage

Outcome = list[Passage] | RetrieverError
NOTHING: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


class FusedRetriever:
    """Several search engines, fused by reciprocal ranks (Cormack et al., 2009), such as
    one by words and one by meaning.

    Passages are the same where their ids are. Where one engine fails at a query, the search has failed. Ties go to what
    the first engine has earlier.

    Args:
        engines: the name of each, as you like, and its search.kind: `{words = "opensearch", meaning = "qdrant"}`.
        options: the engines' options, by these names.
        depth: passages of each that are read; search.k at least.

    Raises:
        ConfigError: there are fewer than two, or one's options are not usable.
    """

    def __init__(
        self,
        passages: Iterable[Passage] = (),
        *,
        engines: Mapping[str, str],
        options: Mapping[str, Mapping[str, Any]] = NOTHING,
        depth: Annotated[int, Meta(ge=1)] = 10,
    ) -> None:
        chosen = _engines_options(engines, options)
        copies = list(tee(passages, len(engines)))  # what no engine that is still to come reads is not held
        self._engines = {name: find("search", kind)(copies.pop(), **chosen[name]) for name, kind in engines.items()}
        self._depth = depth
        self.in_process = all(hasattr(engine, "lookup") for engine in self._engines.values())
        self.bounds_itself = all(
            hasattr(engine, "lookup") or getattr(engine, "bounds_itself", False) for engine in self._engines.values()
        )

    @staticmethod
    def check_options(given: Mapping[str, Any]) -> dict[str, Any]:
        """The options with every engine's own checked."""
        _engines_options(given["engines"], given["options"])
        return dict(given)

    async def search(self, queries: Sequence[str], k: int) -> list[Outcome]:
        """One outcome a query.

        Raises:
            ConfigError: an engine can't serve this k.
        """
        asked = [self._ask(engine, queries, k) for engine in self._engines.values()]
        # A coroutine that is awaited alone answers at once; gathered ones wait for the loop's next round.
        found = [await each for each in asked] if self.in_process else await together(asked)
        return [self._outcome(outcomes, k) for outcomes in zip(*found, strict=True)]

    async def _ask(self, engine: Any, queries: Sequence[str], k: int) -> Sequence[Outcome]:
        outcomes = as_lookup(engine)(queries, depth_of(engine, self._depth, k))
        if inspect.isawaitable(outcomes):
            outcomes = await outcomes
        found: Sequence[Outcome] = outcomes
        return found

    def _outcome(self, outcomes: Sequence[Outcome], k: int) -> Outcome:
        for name, outcome in zip(self._engines, outcomes, strict=True):
            if isinstance(outcome, RetrieverError):
                return RetrieverError(f"search.engines.{name}: {outcome}")
        return fused_by_id([outcome for outcome in outcomes if not isinstance(outcome, RetrieverError)], k)


def fused_by_id(rankings: Sequence[Sequence[Passage]], k: int) -> list[Passage]:
    """The k best passages of several rankings by reciprocal ranks; each as the first ranking that has it gives it."""
    passages: dict[str, Passage] = {}
    for ranking in rankings:
        for passage in ranking:
            passages.setdefault(passage.id, passage)
    row_of, held = {id_: row for row, id_ in enumerate(passages)}, list(passages.values())
    rows = [np.array([row_of[p.id] for p in ranking], np.int64) for ranking in rankings]
    best = reciprocal_ranks([(each, np.zeros(len(each), np.float32)) for each in rows], k)
    return [Passage(held[row].id, held[row].title, held[row].text, score) for row, score in best]


def _engines_options(engines: Mapping[str, str], options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every engine's options, typed and checked, with defaults."""
    if len(engines) < 2:
        raise ConfigError(f"search.engines = {dict(engines)!r}: name two at least, each with its kind")
    if strangers := [name for name in options if name not in engines]:
        raise ConfigError(f"search.options.{strangers[0]}: no such engine; {nearest(strangers[0], list(engines))}")
    chosen = {}
    for name, kind in engines.items():
        try:
            chosen[name] = arguments("search", kind, options.get(name, {}))
        except ConfigError as error:
            raise ConfigError(f"search.options.{name}: {error}") from None
    return chosen
