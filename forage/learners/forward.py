"""The forward pass over micro-batches, as far as anything is computed for it: where the next token was acted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forage.learners.packing import MicroBatch, micro_batches
from forage.logprobs import head_logprobs
from forage.models.packed import attend_packed, hidden_states
from forage.types import Batch


@dataclass(frozen=True, slots=True)
class Forward:
    """How batches go through a language model.

    Args:
        temperature: divides the logits, as in sampling.
        micro_tokens: packed tokens that are computed at a time.
        share_prompts: compute what the rows of a group begin with once.
    """

    temperature: float
    micro_tokens: int
    share_prompts: bool

    def packed(self, batch: Batch) -> list[MicroBatch]:
        """A batch in micro-batches."""
        return list(micro_batches(batch, self.micro_tokens, share_prompts=self.share_prompts))

    def __call__(self, model: Any, micro: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states [M,D] before the acted tokens, and their logprobs and entropies [M]. To be called inside
        `attend_packed`."""
        hidden_MD, head = states(model, micro), model.get_output_embeddings()
        bias_V = getattr(head, "bias", None)
        return hidden_MD, *head_logprobs(hidden_MD, head.weight, bias_V, micro.labels_M, self.temperature)

    @torch.no_grad()
    def logprobs(self, model: Any, batch: Batch) -> Tensor:
        """Of acted tokens [B,T], 0 elsewhere."""
        with attend_packed(model):
            return spread_over(batch, [self(model, micro)[1] for micro in self.packed(batch)])


def states(model: Any, micro: MicroBatch) -> Tensor:
    """Final hidden states [M,D] of the positions before acted tokens. To be called inside `attend_packed`."""
    return hidden_states(model, micro.tokens_N, micro.positions_N, micro.where)[micro.before_M]


def spread_over(batch: Batch, pieces_M: Iterable[Tensor]) -> Tensor:
    """One number an acted token, micro-batch by micro-batch, to [B,T] in float32 or better; 0 elsewhere."""
    values_M = torch.cat([batch.rewards_BT.new_zeros(0), *pieces_M])
    return values_M.new_zeros(batch.acted_BT.shape).masked_scatter(batch.acted_BT, values_M)
