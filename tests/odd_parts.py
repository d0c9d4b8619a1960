"""Parts for tests, named in configurations as `odd_parts:NAME`."""

import asyncio

from forage.errors import RetrieverError


def by_tokens(trajectory):
    """A reward with signal, whatever a model writes: odd or even."""
    return float(sum(trajectory.tokens) % 2)


def not_a_number(trajectory):
    return float("nan")


class NeedsReference:
    """A loss that reads a reference model's logprobs."""

    needs = frozenset({"ref_logprobs_BT"})


class Broken:
    """A search engine that is down."""

    def __init__(self, passages):
        pass

    async def search(self, queries, k):
        return [RetrieverError("connection refused") for _ in queries]


class Hanging:
    """A search engine that never answers."""

    def __init__(self, passages):
        pass

    async def search(self, queries, k):
        await asyncio.Event().wait()
