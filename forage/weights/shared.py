"""Weights to an engine in the same process."""

from __future__ import annotations

from forage.interfaces import Engine, Learner


class SharedWeights:
    """Hands the learner's tensors to the engine, which copies or casts them as it needs."""

    def __init__(self, learner: Learner, engine: Engine) -> None:
        self.learner = learner
        self.engine = engine

    async def push(self, version: int) -> None:
        """Give the engine the weights as they are now, under this version."""
        self.engine.load_weights(self.learner.weights(), version)
