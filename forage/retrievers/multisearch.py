"""Searches of OpenSearch and Elasticsearch as they are written, and their answers as they are read.

Queries as documented at https://docs.opensearch.org/latest/query-dsl/specialized/k-nn/, scores of vectors at
https://docs.opensearch.org/latest/mappings/supported-field-types/knn-spaces/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from forage.clients.rest import score_of
from forage.clients.service import encodable
from forage.types import Passage


class Hit(NamedTuple):
    """A passage, and its place in the corpus; -1 where that is not asked for."""

    passage: Passage
    row: int


@dataclass(frozen=True, slots=True)
class Fields:
    """What the fields of an index are called."""

    searched: tuple[str, ...]
    """by words; several are searched for the best"""
    title: str
    text: str
    vector: str

    def by_words(self, query: str, k: int, *, rows: bool) -> list[dict[str, Any]]:
        """The two lines of a search by BM25, with the word statistics of all shards.

        Args:
            rows: ask for places in the corpus, too.
        """
        text = encodable(query)
        match = {"match": {self.searched[0]: {"query": text}}}
        several = {"multi_match": {"query": text, "fields": list(self.searched)}}
        body = self._body(match if len(self.searched) == 1 else several, k, rows=rows)
        return [{"search_type": "dfs_query_then_fetch"}, body]

    def by_vector(self, vector: Sequence[float], k: int, ef: int, *, rows: bool) -> list[dict[str, Any]]:
        """The two lines of a search for the nearest vectors; `ef` 0 leaves the graph's own setting."""
        near = {"vector": vector, "k": k} | ({"method_parameters": {"ef_search": ef}} if ef else {})
        return [{}, self._body({"knn": {self.vector: near}}, k, rows=rows)]

    def _body(self, query: dict[str, Any], k: int, *, rows: bool) -> dict[str, Any]:
        return {
            "size": k,
            "query": query,
            "sort": [{"_score": "desc"}, {"row": {"order": "asc", "unmapped_type": "long"}}],
            "track_scores": True,
            "track_total_hits": False,
            "_source": [self.title, self.text, *(["row"] if rows else [])],
        }

    def hits(self, response: Any, k: int, *, rows: bool) -> list[Hit]:
        """What a search found.

        Raises:
            ValueError, LookupError, TypeError: not as documented.
        """
        found = response["hits"]["hits"]
        if len(found) > k:
            raise ValueError("more hits than asked for")
        return [Hit(self._passage(hit), int(hit["_source"]["row"]) if rows else -1) for hit in found]

    def _passage(self, hit: Any) -> Passage:
        source = hit["_source"]
        title, text = source.get(self.title) or "", source[self.text]
        if not isinstance(title, str) or not isinstance(text, str):
            raise TypeError("a text that is none")
        return Passage(str(hit["_id"]), title, text, score_of(hit["_score"]))


def failure_of(response: Any) -> str:
    """Why a search failed, or gave a part of its results only; empty where it did not.

    Raises:
        LookupError, TypeError: not as documented.
    """
    if error := response.get("error"):
        return f"{error.get('type')}: {error.get('reason')}" if isinstance(error, dict) else str(error)
    if failed := response["_shards"]["failed"]:
        return f"{failed} of {response['_shards']['total']} shards did not answer"
    return "the search ran out of time, and gave a part of its results" if response["timed_out"] else ""


def inner_product(score: float) -> float:
    """The inner product that OpenSearch made a score above 0 of: 1 + p where p is above 0, else 1 / (1 - p).

    Raises:
        ValueError: it is no such score.
    """
    if score <= 0:
        raise ValueError(f"a score of {score}")
    return score - 1 if score >= 1 else 1 - 1 / score
