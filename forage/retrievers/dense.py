"""Search by meaning over an index folder of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from forage.errors import DataError, IndexFolderError, RetrieverError
from forage.indexing.encoding import Encoding, NamedEncoder, open_encoder
from forage.indexing.folder import IndexInfo
from forage.indexing.store import PassageStore
from forage.indexing.structures import Structure
from forage.indexing.vectors import Half, open_vectors
from forage.retrievers.corpus import check_k
from forage.retrievers.fusion import Ranking, as_ranking
from forage.retrievers.nearest import Nearest
from forage.types import Passage

Count = Annotated[int, Meta(ge=1)]
_SAME = 0.98  # cosine of a passage's vector, now and when the index was built; other dtypes give .9999


class DenseIndex:
    """Nearest vectors over an index folder, whose vectors and texts are mapped. Scores are inner products.

    An empty query finds nothing. Use `forage.retrievers.indexed.open_index`.

    Args:
        encoder_path: where the model lies now; without it, where it lay.
        encoder_dtype: what it computes in; without it, what it computed in.
        encoder_device: auto, cpu or cuda.
        ef_search: passages of the graph that a search keeps in view; without it, what index.json says.
        nprobe: lists that a search reads; without it, what index.json says.
        candidates: passages found by their codes that are compared exactly; without it, what index.json says.

    Raises:
        IndexFolderError: vectors or structure are missing or broken, or the encoder is another one or gone.
        ConfigError: an option is for another structure.
        MissingExtra: faiss-cpu is not installed.
    """

    batch_size = 32  # queries a call; encoding them together halves its cost

    def __init__(
        self,
        folder: Path,
        info: IndexInfo,
        store: PassageStore,
        *,
        encoder_path: str | None = None,
        encoder_dtype: str | None = None,
        encoder_device: str | None = None,
        ef_search: Count | None = None,
        nprobe: Count | None = None,
        candidates: Count | None = None,
    ) -> None:
        self._store = store
        try:
            kept = msgspec.convert(info.options["encoder"], Encoding)
            structure = msgspec.convert(info.options["structure"], Structure)
            longest, encoded = float(info.options["longest"]), info.options["vectors"] == "encoded"
        except (KeyError, TypeError, ValueError) as error:
            raise IndexFolderError(f"{folder} does not say how it was encoded ({error}): build it again") from error
        searched = _those({"ef_search": ef_search, "nprobe": nprobe, "candidates": candidates})
        structure.check_used(searched)
        vectors = open_vectors(folder, len(store), kept.dimensions)
        given = {"path": encoder_path, "dtype": encoder_dtype, "device": encoder_device}
        self._encoder = open_encoder(kept, folder, _those(given))
        if encoded:
            _check_first(self._encoder, kept.text(store[0]), vectors, folder)
        self._nearest = Nearest(vectors, msgspec.structs.replace(structure, **searched), folder, longest)

    def __len__(self) -> int:
        return len(self._store)

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best k passages of each query, best first; ties go to the earlier passage.

        Raises:
            ConfigError: k is less than 1 or more than there are passages.
            RetrieverError: the encoder gave something else than vectors.
        """
        check_k(k, len(self))
        found = self.rank(queries, k)
        return [
            [self._store.scored(row, score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)]
            for rows, scores in found
        ]

    def rank(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """The rows of these passages and their scores, without the passages."""
        asked = [place for place, query in enumerate(queries) if query.strip()]
        found: list[Ranking] = [as_ranking([])] * len(queries)
        if asked:
            try:
                vectors = self._encoder.queries([queries[place] for place in asked])
            except DataError as error:
                raise RetrieverError(str(error)) from error
            for place, ranking in zip(asked, self._nearest.best(vectors, k), strict=True):
                found[place] = ranking
        return found


def _check_first(encoder: NamedEncoder, text: str, vectors: Half, folder: Path) -> None:
    """The first passage, encoded again: tells another tokenizer or library where no setting does."""
    now, then = encoder.passages([text])[0].astype(np.float64), vectors[0].astype(np.float64)
    lengths = np.linalg.norm(now) * np.linalg.norm(then)
    if lengths and now @ then < _SAME * lengths:
        raise IndexFolderError(
            f"the encoder {encoder.name} does not give the vectors of {folder}: its first passage has a cosine of "
            f"{now @ then / lengths:.2f} to what it was. Name the one that it was built with, or build it again"
        )


def _those(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
