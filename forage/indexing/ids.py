"""Finds ids that occur twice, in 8 bytes an id."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_BLOCK = 65_536


class Marks:
    """64-bit marks of the ids seen so far, in sorted arrays that double in size. Equal marks mean equal ids, but for
    one chance in about 37 million among a million ids: whoever sees a doubled mark looks again.

    Memory: 8 bytes an id, for a moment twice that.
    """

    def __init__(self) -> None:
        self._fresh: list[int] = []
        self._sorted: list[NDArray[np.uint64]] = []

    def add(self, identity: str) -> set[int]:
        """Marks known to be doubled, looked for once every 65,536 ids; mostly none."""
        self._fresh.append(mark(identity))
        return self.doubled() if len(self._fresh) == _BLOCK else set()

    def doubled(self) -> set[int]:
        """Marks among the latest ids that were there before."""
        block = np.sort(np.array(self._fresh, np.uint64))
        found = set(block[1:][block[1:] == block[:-1]].tolist())
        for older in self._sorted:
            places = np.searchsorted(older, block)
            inside = places < len(older)
            found |= set(block[inside][older[places[inside]] == block[inside]].tolist())
        self._keep(block)
        return found

    def _keep(self, block: NDArray[np.uint64]) -> None:
        self._fresh = []
        while self._sorted and len(self._sorted[-1]) <= len(block):
            block = np.concatenate([self._sorted.pop(), block])
            block.sort(kind="stable")
        self._sorted.append(block)


def mark(identity: str) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
