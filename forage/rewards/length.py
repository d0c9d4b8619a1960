"""A penalty on long episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from forage.errors import ConfigError
from forage.types import Scores, Trajectory

Positive = Annotated[int, Meta(ge=1)]


class SoftOverlong:
    """0 up to `max_tokens - buffer_tokens`, then falling linearly to -1 at `max_tokens`, and -1 beyond.

    DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13), over the tokens that the policy wrote in the whole
    episode: passages are not its fault.

    Args:
        max_tokens: tokens of an episode's own that are certainly too many.
        buffer_tokens: over so many tokens before that the penalty sets in.

    Raises:
        ConfigError: the buffer is longer than the whole.
    """

    def __init__(self, *, max_tokens: Positive, buffer_tokens: Positive) -> None:
        if buffer_tokens > max_tokens:
            raise ConfigError(f"length: buffer_tokens = {buffer_tokens} must be at most max_tokens = {max_tokens}")
        self._max, self._buffer = max_tokens, buffer_tokens

    async def __call__(self, group: Sequence[Trajectory]) -> list[Scores]:
        return [self._score(trajectory) for trajectory in group]

    def _score(self, trajectory: Trajectory) -> Scores:
        room = self._max - sum(trajectory.acted)
        penalty = max(-1.0, min(0.0, room / self._buffer - 1))
        return Scores(penalty, {"length": penalty})
