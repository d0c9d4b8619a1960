"""What searching an engine on other machines takes, whichever it is: batches, vectors of queries, a look at answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import chain

from forage.clients.rest import Rest
from forage.concurrency import together
from forage.errors import DataError, RetrieverError, ServiceError
from forage.indexing.embedded import QueryEncoder
from forage.indexing.encoding import Encoding
from forage.types import Passage

Outcome = list[Passage] | RetrieverError
Vectors = Sequence[Sequence[float]]
Ask = Callable[[Sequence[str], Vectors], Awaitable[list[Outcome]]]
"""One request: queries and a vector each (none, where there is no encoder) to an outcome each."""


class Elsewhere:
    """Searches of one index of an engine.

    Args:
        rest: the engine.
        where: the index, for messages.
        batch: queries a request, encoded together.
        encoder: of queries; None: they are asked by their words alone.
        encoding: asks what the index says of its encoder.
    """

    def __init__(
        self,
        rest: Rest,
        where: str,
        batch: int,
        encoder: QueryEncoder | None,
        encoding: Callable[[], Awaitable[Encoding | None]],
    ) -> None:
        self._rest, self._where, self._batch = rest, where, batch
        self._encoder, self._encoding = encoder, encoding

    async def search(self, queries: Sequence[str], ask: Ask) -> list[Outcome]:
        """One outcome a query; what can't be encoded or is not answered is a failed search.

        Raises:
            ConfigError: the index was loaded with another encoder, or does not say and none is named.
        """
        asked = [row for row, query in enumerate(queries) if query.strip()]  # of no word, nothing is found
        outcomes: list[Outcome] = [[] for _ in queries]
        batches = [
            [queries[row] for row in asked[low : low + self._batch]] for low in range(0, len(asked), self._batch)
        ]
        encoded = [await self._vectors(batch) for batch in batches]  # one after another: each takes the whole machine
        answered = await together(self._ask(ask, batch, rows) for batch, rows in zip(batches, encoded, strict=True))
        for row, outcome in zip(asked, chain.from_iterable(answered), strict=True):
            outcomes[row] = outcome
        return outcomes

    def failure(self, query: str, cause: str) -> RetrieverError:
        """A failed search, which names query and server."""
        return RetrieverError(f"the search for {query[:200]!r} failed at {self._rest.url}: {cause[:500]}")

    async def _vectors(self, queries: Sequence[str]) -> Vectors | str:
        """One a query; or why there are none."""
        if self._encoder is None:
            return []
        try:
            return await self._encoder.encode(queries, self._encoding, self._where)
        except (ServiceError, DataError) as error:
            return str(error)

    async def _ask(self, ask: Ask, queries: Sequence[str], vectors: Vectors | str) -> list[Outcome]:
        if isinstance(vectors, str):
            return [self.failure(query, vectors) for query in queries]
        try:
            return await ask(queries, vectors)
        except ServiceError as error:
            return [self.failure(query, str(error)) for query in queries]


def flaw_of(passages: Sequence[Passage]) -> str:
    """What is wrong with passages that were found; empty where nothing is."""
    seen: set[str] = set()
    for passage in passages:
        if not passage.text.strip():
            return f"it gave the passage {passage.id[:80]!r} without text"
        if passage.id in seen:
            return f"it gave the passage {passage.id[:80]!r} twice"
        seen.add(passage.id)
    return ""
