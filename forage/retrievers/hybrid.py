"""By words and by meaning at once: the rankings of an index's two parts, fused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from forage.errors import IndexFolderError
from forage.indexing.folder import IndexInfo
from forage.indexing.hybrid import DENSE, LEXICAL, Depth, Fusion, Method, Weight
from forage.indexing.store import PassageStore
from forage.registry import find
from forage.retrievers.corpus import check_k
from forage.retrievers.fusion import Ranking, as_ranking, reciprocal_ranks, weighted_scores
from forage.types import Passage


class Ranker(Protocol):
    """A part of a hybrid index."""

    def rank(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """The rows of the best k passages of each query, best first, ties by row, and their scores."""
        ...


class HybridIndex:
    """BM25 and vectors over an index folder. Scores are those of the fusion.

    Where one part finds nothing for a query, the other's order stands. Use `forage.retrievers.indexed.open_index`.

    Args:
        fusion: rrf or weighted; without it, what index.json says.
        depth: passages of each ranking that are read, k at least; without it, what index.json says.
        lexical_weight: of BM25 in weighted fusion, from 0 to 1; without it, what index.json says.

    Raises:
        IndexFolderError: a part can't be opened, or index.json does not say how they are fused.
        ConfigError: a weight is given where ranks are fused.
    """

    made_of = (DENSE,)

    def __init__(
        self,
        folder: Path,
        info: IndexInfo,
        store: PassageStore,
        *,
        fusion: Method | None = None,
        depth: Depth | None = None,
        lexical_weight: Weight | None = None,
        **options: Any,
    ) -> None:
        self._store = store
        try:
            stored = msgspec.convert(info.options["fusion"], Fusion)
            parts = {kind: _part(info, kind) for kind in (LEXICAL, DENSE)}
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise IndexFolderError(
                f"{folder} does not say how its parts are fused ({error}): build it again"
            ) from error
        self.fusion = stored.changed(fusion, depth, lexical_weight)
        self.lexical: Ranker = find("reader", LEXICAL)(folder, parts[LEXICAL], store)
        self.dense: Ranker = find("reader", DENSE)(folder, parts[DENSE], store, **options)
        self.batch_size = int(getattr(self.dense, "batch_size", 1))

    def __len__(self) -> int:
        return len(self._store)

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best k passages of each query, best first, with the scores of the fusion; ties go to the earlier one.

        Raises:
            ConfigError: k is less than 1 or more than there are passages.
        """
        check_k(k, len(self))
        return [[self._store.scored(row, score) for row, score in fused] for fused in self._fused(queries, k)]

    def rank(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """The rows of these passages and their scores, without the passages."""
        return [as_ranking(fused) for fused in self._fused(queries, k)]

    def rankings(self, queries: Sequence[str], depth: int) -> list[tuple[Ranking, Ranking]]:
        """What BM25 and the vectors find for each query."""
        return list(zip(self.lexical.rank(queries, depth), self.dense.rank(queries, depth), strict=True))

    def _fused(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        depth = min(max(self.fusion.depth, k), len(self))
        return [fuse(self.fusion, *both, k, depth) for both in self.rankings(queries, depth)]


def fuse(fusion: Fusion, lexical: Ranking, dense: Ranking, k: int, depth: int) -> list[tuple[int, float]]:
    """(row, score) of the k best passages of two rankings of that depth, best first, ties by row."""
    if fusion.lexical_weight is None:
        return reciprocal_ranks((lexical, dense), k)
    return weighted_scores(lexical, dense, k, depth=depth, lexical_weight=fusion.lexical_weight)


def _part(info: IndexInfo, kind: str) -> IndexInfo:
    """What a part would say of itself, were it alone."""
    options: dict[str, Any] = info.options[kind]
    return msgspec.structs.replace(info, kind=kind, options=options)
