"""A reward that stops paying, so that a run collapses when a test wants it."""

from forage.types import Scores


class Fading:
    """Pays every second sample in the first `groups` groups that it sees, and nothing from then on."""

    def __init__(self, *, groups: int = 6) -> None:
        self._left = groups

    async def __call__(self, group):
        self._left -= 1
        return [Scores(float(t.sample % 2) if self._left >= 0 else 0.0) for t in group]
