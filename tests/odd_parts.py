"""Parts for tests, named in configurations as `odd_parts:NAME`."""

import asyncio

from forage.errors import RetrieverError
from forage.types import Scores


def by_tokens(trajectory):
    """A reward with signal, whatever a model writes: odd or even."""
    return float(sum(trajectory.tokens) % 2)


def nothing(trajectory):
    """A reward that nobody earns."""
    return 0.0


def not_a_number(trajectory):
    return float("nan")


class Patient:
    """A reward with signal that fails in its 5th group."""

    def __init__(self):
        self._groups = 0

    async def __call__(self, group):
        self._groups += 1
        if self._groups == 5:
            raise OSError("the judge is gone")
        return [Scores(by_tokens(trajectory)) for trajectory in group]


class NeedsReference:
    """A loss that reads a reference model's logprobs."""

    needs = frozenset({"ref_logprobs_BT"})


class NeedsOldLogprobs:
    """Reads what the learner gave a token before the update, which an update fills in for its loss."""

    needs = frozenset({"old_logprobs_BT"})
    group_relative = True


class NeedsBaselines:
    """A loss that reads what greedy episodes earned."""

    needs = frozenset({"baselines_B"})


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


class Bursting:
    """A loss that is no number from its fifth call on."""

    needs = frozenset()

    def __init__(self):
        self.calls = 0

    def __call__(self, logprobs_BT, batch):
        self.calls += 1
        burst = float("nan") if self.calls > 4 else 1.0
        return -burst * logprobs_BT * batch.advantages_BT, {}
