"""The passages behind an index, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from forage.errors import ConfigError, DataError
from forage.types import Passage


class Corpus:
    """Passages by row.

    Raises:
        DataError: there is none, or two share an id.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages = list(passages)
        if not self._passages:
            raise DataError("the corpus is empty: there is nothing to search")
        seen: set[str] = set()
        for passage in self._passages:
            if passage.id in seen:
                raise DataError(f"two passages of the corpus have the id {passage.id!r}; ids must differ")
            seen.add(passage.id)

    def __len__(self) -> int:
        return len(self._passages)

    def __iter__(self) -> Iterator[Passage]:
        return iter(self._passages)

    def scored(self, row: int, score: float) -> Passage:
        """The passage of that row with a score."""
        passage = self._passages[row]
        return Passage(passage.id, passage.title, passage.text, score)

    def check(self, k: int) -> None:
        """Refuse a k that the corpus can't serve.

        Raises:
            ConfigError: k is less than 1 or more than there are passages.
        """
        check_k(k, len(self))


def check_k(k: int, passages: int) -> None:
    """Refuse a k that so many passages can't serve.

    Raises:
        ConfigError: k is less than 1 or more than there are passages.
    """
    if not 1 <= k <= passages:
        raise ConfigError(f"search.k = {k}, but the corpus holds {passages} passages: set it from 1 to {passages}")
