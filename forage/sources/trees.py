"""Where the episodes of a group branch off from one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forage.types import Trajectory


def branches(roots: Sequence[Trajectory], samples: int, seed: int) -> list[Trajectory]:
    """Beginnings of the episodes that are missing in a group of `samples`, to be played on; one tree a root.

    Trees grow alike: each gets a branch, in an order that the seed draws, before one gets another. It begins at any of
    its root's turns, all equally likely: what stands before the turn is taken over, and the turn is sampled anew. At
    the first turn nothing but the question is shared. (Tree-GRPO, arXiv 2509.21240, with one round of expansion.)
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    order: list[int] = []
    begun: list[Trajectory] = []
    for sample in range(len(roots), samples):
        order = order or rng.permutation(len(roots)).tolist()
        root = roots[order.pop()]
        begun.append(root.branch(int(rng.integers(max(len(root.turns), 1))), sample))
    return begun
