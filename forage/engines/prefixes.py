"""Which slots of a `KVCache` begin with the same bits, because one was copied from the other."""

from __future__ import annotations

import numpy as np


class Prefixes:
    """For each slot another one, its holder, and how many first positions they have in common, bit by bit.

    A row whose holder is read for others too finds that part in the nearest cache: of what a group has in common,
    memory is asked once. Nothing is compared: what is not known to be a copy counts as different. A slot that is left
    keeps its bits, and so its part here, until it is written to.

    Attributes:
        holders: int64 [slots].
        lengths: positions, int64 [slots]; 0 where there is no holder, whatever `holders` says.
    """

    def __init__(self, slots: int) -> None:
        self.holders = np.arange(slots)
        self.lengths = np.zeros(slots, np.int64)

    def copied(self, source: int, target: int, length: int) -> None:
        """The first `length` positions of `target` are now those of `source`; what stood there was `changing`."""
        if self.lengths[source] >= length:
            source = self.holders[source]
        if source != target:
            self.holders[target], self.lengths[target] = source, length

    def changing(self, slot: int, first: int) -> None:
        """A slot's positions from `first` on are about to be written.

        Slots that share more than that with it share it with one another now, and with the slot's own holder.
        """
        holder, shared = self.holders[slot], self.lengths[slot]
        heirs = np.flatnonzero((self.holders == slot) & (self.lengths > first))
        if len(heirs):
            heir = heirs[self.lengths[heirs].argmax()]
            self.holders[heirs] = heir
            self.holders[heir], self.lengths[heir] = holder, min(shared, self.lengths[heir])
        self.lengths[slot] = min(shared, first)

    def swapped(self, one: int, other: int, length: int) -> None:
        """The first `length` positions of two slots have changed places; no one shares the rest any more."""
        pair, swapped_pair = [one, other], [other, one]
        moved = (self.holders == one) | (self.holders == other)
        moved[pair] = True
        self.lengths[moved] = np.minimum(self.lengths[moved], length)
        places = np.arange(len(self.holders))
        places[pair] = swapped_pair
        self.holders[pair], self.lengths[pair] = self.holders[swapped_pair], self.lengths[swapped_pair]
        self.holders[:] = places[self.holders]
