"""The order in which questions are asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forage.types import Question


class Order:
    """A permutation of the questions, another one each epoch, from a seed alone; `order[position]` is a question."""

    def __init__(self, questions: Sequence[Question], seed: int) -> None:
        self._questions, self._seed = questions, seed
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> Question:
        epoch, index = divmod(position, len(self._questions))
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, epoch, 1])))
            self._epoch, self._permutation = epoch, rng.permutation(len(self._questions))
        return self._questions[int(self._permutation[index])]
