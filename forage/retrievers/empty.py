"""A search engine that never finds anything: what is the policy worth without passages?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from forage.types import Passage


class EmptyRetriever:
    """Finds no passage, whatever is asked. The corpus is not read."""

    def __init__(self, passages: Iterable[Passage] = ()) -> None:
        del passages

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """An empty list for each query."""
        del k
        return [[] for _ in queries]
