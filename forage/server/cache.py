"""Answers that were given before, as the bytes that were sent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

_ENTRY_BYTES = 300  # what Python needs for an entry besides its bytes and its query


class AnswerCache:
    """Bytes by what was asked; the least recently used are forgotten when they are more than `max_bytes` together."""

    def __init__(self, max_bytes: int) -> None:
        self._entries: OrderedDict[tuple[Hashable, ...], tuple[bytes, int]] = OrderedDict()
        self._max_bytes = max_bytes
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, *key: Hashable) -> bytes | None:
        """The bytes of a key, where they are remembered."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, answer: bytes, *key: Hashable) -> None:
        """Remember an answer, if it fits at all."""
        size = len(answer) + _ENTRY_BYTES + sum(4 * len(part) for part in key if isinstance(part, str))
        if size > self._max_bytes or key in self._entries:
            return
        self._entries[key] = (answer, size)
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, (_, gone) = self._entries.popitem(last=False)
            self.bytes -= gone
