"""Vectors of all passages on disk, and what finds the nearest of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from forage.errors import ConfigError
from forage.indexing.build import Progress
from forage.indexing.encoding import NamedEncoder, with_options
from forage.indexing.store import PassageStore
from forage.indexing.structures import Kind, Structure, build_structure, faiss
from forage.indexing.vectors import (
    SHARD,
    VECTORS,
    brought_vectors,
    check_encoder,
    copy_vectors,
    longest,
    open_vectors,
    write_vectors,
)

NOTHING: Mapping[str, Any] = MappingProxyType({})
_DEFAULT = Structure()
_LIBRARIES = 450e6  # bytes that PyTorch and transformers take, without a model
Count = Annotated[int, Meta(ge=1)]
Chosen = Annotated[int, Meta(ge=0)]


class DenseBuilder:
    """Vectors by a text encoder, in float16, with what finds the nearest ones.

    Args:
        encoder: transformer, or `package.module:Class` of your own.
        encoder_path: folder of a Hugging Face text encoder, or its name on the hub.
        encoder_family: e5, bge, bge-zh, bge-m3, contriever, gte, gte-v1.5, sentence-transformers or plain, where
            neither the folder nor its name tells.
        encoder_query_prefix: before every query, in place of the family's.
        encoder_passage_prefix: before every passage, in place of the family's.
        encoder_pooling: mean, cls or last, in place of the family's.
        encoder_normalise: scale vectors to length 1, in place of what the family does.
        encoder_max_tokens: of a text; longer ones are cut.
        encoder_dtype: auto, float32, bfloat16 or float16: what the model computes in.
        encoder_device: auto, cpu or cuda.
        encoder_batch_tokens: of a forward pass, padding included.
        encoder_options: other options of an encoder of your own.
        title: encode passages with their title before the text.
        vectors: a .npy file with one vector for each passage, in their order, to be taken instead of encoding.
        shard: passages that are encoded at once; an interruption loses no more.
        structure: flat (every vector is compared), hnsw (a graph) or ivfpq (lists of compressed vectors).
        hnsw_m: neighbours of a passage in the graph.
        ef_construction: passages that are looked at for a new one's neighbours.
        ef_search: passages of the graph that a search keeps in view; it can be set anew for each opening.
        nlist: lists; 0: four times the root of the number of passages.
        pq_m: bytes of a compressed vector; 0: one for every 8 dimensions.
        train_passages: passages that lists and codes are learned from; 0: 65,536, or 64 for each list.
        nprobe: lists that a search reads; it can be set anew for each opening.
        candidates: passages found by their codes that are compared exactly; it can be set anew for each opening.

    Raises:
        ConfigError: an option does not fit, or nothing says how the encoder wants to be asked.
        CheckpointError: there is no such model.
        DataError: the vectors that are brought can't be read, or have other dimensions.
        MissingExtra: faiss-cpu is not installed.
    """

    packages = ("faiss-cpu", "torch", "transformers")

    def __init__(
        self,
        *,
        encoder: str = "transformer",
        encoder_path: str | None = None,
        encoder_family: str | None = None,
        encoder_query_prefix: str | None = None,
        encoder_passage_prefix: str | None = None,
        encoder_pooling: str | None = None,
        encoder_normalise: bool | None = None,
        encoder_max_tokens: int | None = None,
        encoder_dtype: str | None = None,
        encoder_device: str | None = None,
        encoder_batch_tokens: int | None = None,
        encoder_options: Mapping[str, Any] = NOTHING,
        title: bool = True,
        vectors: Path | None = None,
        shard: Count = SHARD,
        structure: Kind = _DEFAULT.kind,
        hnsw_m: Annotated[int, Meta(ge=2)] = _DEFAULT.hnsw_m,
        ef_construction: Count = _DEFAULT.ef_construction,
        ef_search: Count = _DEFAULT.ef_search,
        nlist: Chosen = _DEFAULT.nlist,
        pq_m: Chosen = _DEFAULT.pq_m,
        train_passages: Chosen = _DEFAULT.train_passages,
        nprobe: Count = _DEFAULT.nprobe,
        candidates: Count = _DEFAULT.candidates,
    ) -> None:
        faiss()
        given = {
            "path": encoder_path,
            "family": encoder_family,
            "query_prefix": encoder_query_prefix,
            "passage_prefix": encoder_passage_prefix,
            "pooling": encoder_pooling,
            "normalise": encoder_normalise,
            "max_tokens": encoder_max_tokens,
            "dtype": encoder_dtype,
            "device": encoder_device,
            "batch_tokens": encoder_batch_tokens,
        }
        named = {name: value for name, value in given.items() if value is not None}
        if vectors and shard != SHARD:
            raise ConfigError("shard does nothing with vectors, which are not encoded: leave one of them out")
        self._encoder = NamedEncoder(encoder, with_options(named, encoder_options))
        self._encoding = self._encoder.encoding(title=title)
        self._brought, self._shard = vectors, shard
        self._structure = Structure(
            kind=structure,
            hnsw_m=hnsw_m,
            ef_construction=ef_construction,
            ef_search=ef_search,
            nlist=nlist,
            pq_m=pq_m,
            train_passages=train_passages,
            nprobe=nprobe,
            candidates=candidates,
        )
        self._structure.check_used(self._structure.changed)
        self._structure.check_dimensions(self._encoder.dimensions)
        if vectors:
            brought_vectors(vectors, self._encoder.dimensions)  # before the corpus is read

    def plan(self) -> str:
        """Half a sentence for a person before it starts: the memory it will take at most."""
        peak = _LIBRARIES + self._encoder.memory + 20e3 * self._shard
        return f"about {peak / 1e6:,.0f} MB for vectors{self._structure.memory(self._encoder.dimensions)}"

    def build(self, store: PassageStore, folder: Path, progress: Progress) -> dict[str, Any]:
        """Write `dense.vectors.npy` and the structure's file; what an interrupted call finished is taken as it is."""
        passages, dimensions = len(store), self._encoder.dimensions
        chosen = self._structure.settled(passages, dimensions)
        check_encoder(folder, self._encoding)
        if not (folder / VECTORS).exists():
            if self._brought:
                copy_vectors(self._brought, folder, passages, dimensions)
            else:
                write_vectors(self._encoder, self._encoding, store, folder, progress, self._shard)
        vectors = open_vectors(folder, passages, dimensions)
        build_structure(chosen, vectors, folder, partial(progress, f"passages in the {chosen.kind} structure"))
        return {
            "encoder": msgspec.to_builtins(self._encoding),
            "structure": msgspec.to_builtins(chosen),
            "vectors": "brought" if self._brought else "encoded",
            "longest": longest(vectors),
        }
