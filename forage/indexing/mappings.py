"""How an index of OpenSearch or Elasticsearch is laid out, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from forage.clients.rest import Rest
from forage.indexing.embedded import kept_encoding, what_is_kept
from forage.indexing.encoding import Encoding

VECTOR = "vector"
"""The field with a passage's vector."""
NearEngine = Literal["faiss", "lucene"]


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The graph by which OpenSearch finds the nearest vectors (HNSW)."""

    engine: NearEngine = "faiss"
    m: Annotated[int, Meta(ge=2, le=100)] = 16
    """neighbours of a passage"""
    ef_construction: Annotated[int, Meta(ge=1)] = 128
    """passages that are looked at for a new one's neighbours"""

    def field(self, dimensions: int) -> dict[str, Any]:
        """The mapping of the field. Inner products are what Forage compares by; of vectors of length 1, the cosine."""
        parameters = {"m": self.m, "ef_construction": self.ef_construction}
        method = {"name": "hnsw", "engine": self.engine, "space_type": "innerproduct", "parameters": parameters}
        return {"type": "knn_vector", "dimension": dimensions, "method": method}


def schema(
    *,
    k1: float = 0.9,
    b: float = 0.4,
    analyser: str = "english",
    shards: int = 1,
    graph: Graph | None = None,
    encoding: Encoding | None = None,
) -> dict[str, Any]:
    """Settings and mappings of an index that searches title and text as one field, `contents`, by BM25.

    `row` is the passage's place in the corpus, by which ties are broken. Searching is switched on (`refresh_interval`)
    once everything is loaded.

    Args:
        encoding: of the vectors, which stand in a field of their own; None: there are none.
        graph: what finds the nearest of them.
    """
    stored = {"type": "text", "index": False, "copy_to": "contents"}
    fields = {
        "title": stored,
        "text": stored,
        "contents": {"type": "text", "analyzer": analyser},
        "row": {"type": "long"},
    }
    similarity = {"default": {"type": "BM25", "k1": k1, "b": b}}
    index: dict[str, Any] = {"number_of_shards": shards, "refresh_interval": "-1", "similarity": similarity}
    mappings: dict[str, Any] = {"dynamic": False, "properties": fields}
    if encoding:
        index["knn"] = True
        fields[VECTOR] = (graph or Graph()).field(encoding.dimensions)
        mappings["_meta"] = what_is_kept(encoding)
    return {"settings": {"index": index}, "mappings": mappings}


async def encoding_of(rest: Rest, path: str, where: str) -> Encoding | None:
    """What an index says of its encoder; None where it says nothing. Of an alias, what its first index says.

    Raises:
        ServiceError: there is no such index, or no answer.
        ConfigError: it says what this Forage does not understand.
    """

    def read(reply: Mapping[str, Any]) -> dict[str, Any]:
        said: dict[str, Any] = next(iter(reply.values()))["mappings"].get("_meta") or {}
        return said

    return kept_encoding(await rest.call("GET", f"{path}/_mapping", read, expected="mapping"), where)
