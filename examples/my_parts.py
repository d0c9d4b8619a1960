"""Parts of your own: two rewards and a search engine. Nothing in Forage changes for them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from forage.text import exact_match, normalize_answer
from forage.types import Passage, Scores, Trajectory


def brevity(trajectory: Trajectory) -> float:
    """A right answer is worth 1, halved for each 100 tokens that the policy wrote; a wrong one is worth nothing."""
    right = exact_match(trajectory.answer or "", trajectory.question.answers)
    return right * 0.5 ** (sum(trajectory.acted) / 100)


class Frugal:
    """Exact match, less a price for each search on the way to a right answer.

    Args:
        price: what one search costs.
    """

    def __init__(self, *, price: float = 0.05) -> None:
        self._price = price

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        return [self._score(trajectory) for trajectory in group]

    def _score(self, trajectory: Trajectory) -> Scores:
        right = float(exact_match(trajectory.answer or "", trajectory.question.answers))
        spent = self._price * trajectory.searches
        return Scores(right * max(0.0, 1 - spent), {"em": right, "spent": spent})


class TitleSearch:
    """Finds the passages whose titles share the most words with the query.

    Args:
        min_words: words that a title must share with the query to be found.
    """

    def __init__(self, passages: Iterable[Passage], *, min_words: int = 1) -> None:
        self._min_words = min_words
        self._by_word: dict[str, list[Passage]] = defaultdict(list)
        for passage in passages:
            for word in set(normalize_answer(passage.title).split()):
                self._by_word[word].append(passage)

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        return [self._best(query, k) for query in queries]

    def _best(self, query: str, k: int) -> list[Passage]:
        words = set(normalize_answer(query).split())
        shared = Counter(passage for word in words for passage in self._by_word.get(word, ()))
        found = sorted(shared, key=lambda passage: (-shared[passage], passage.id))
        return [
            Passage(passage.id, passage.title, passage.text, float(shared[passage]))
            for passage in found[:k]
            if shared[passage] >= self._min_words
        ]
