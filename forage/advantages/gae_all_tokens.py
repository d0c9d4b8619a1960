"""The reference's fault, to reproduce its numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from forage.advantages.gae import GAE
from forage.types import Batch


class GAEAllTokens(GAE):
    """A fault of Search-R1's code, kept by this name to reproduce its numbers; `gae` is right.

    Every token from the first acted one on is a time step, retrieved passages too: gamma and lam decay over text that
    the policy did not write, it has values and enters the whitening, and the critic learns from it. Advantages are on
    acted tokens only. What is not reproduced: the reference leaves the first token out of the critic's loss and counts
    the one behind the end in, since its critic's mask is off by one.

    Args:
        gamma: what a reward one token later is worth.
        lam: 1 trusts rewards only, 0 the critic's next value only.
        whiten: bring advantages to mean 0 and variance 1 over all these tokens.
    """

    judges_shown = True

    def steps(self, batch: Batch) -> Tensor:
        """Which tokens are time steps, bool [B,T]."""
        places_T = torch.arange(batch.acted_BT.shape[1], device=batch.acted_BT.device)
        return (batch.acted_BT.cumsum(1) > 0) & (places_T < batch.lengths_B[:, None])
