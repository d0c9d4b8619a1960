"""A search engine that finds anything: does the policy use what it reads, or only the fact that it read something?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from forage.retrievers.corpus import Corpus
from forage.types import Passage


class RandomRetriever:
    """Finds k different passages at random; the same ones whenever the same query is asked under the same seed.

    Args:
        seed: changes which passages a query finds.

    Raises:
        DataError: the corpus is empty, or two passages share an id.
    """

    def __init__(self, passages: Iterable[Passage], *, seed: int = 0) -> None:
        self._corpus = Corpus(passages)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._corpus)

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """k passages of score 0 for each query.

        Raises:
            ConfigError: k is less than 1 or more than there are passages.
        """
        self._corpus.check(k)
        return [[self._corpus.scored(row, 0.0) for row in self._rows(query, k)] for query in queries]

    def _rows(self, query: str, k: int) -> list[int]:
        digest = hashlib.blake2b(f"{self._seed} {query}".encode(), digest_size=16).digest()
        stream = np.random.Generator(np.random.Philox(key=int.from_bytes(digest)))
        rows: list[int] = stream.choice(len(self._corpus), size=k, replace=False).tolist()
        return rows
