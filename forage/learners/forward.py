"""The forward pass over a micro-batch, as far as anything is computed for it: where the next token was acted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from forage.learners.packing import MicroBatch
from forage.logprobs import head_logprobs
from forage.models.packed import hidden_states
from forage.types import Batch


def states(model: Any, micro: MicroBatch) -> Tensor:
    """Final hidden states [M,D] of the positions before acted tokens. To be called inside `attend_packed`."""
    return hidden_states(model, micro.tokens_N, micro.positions_N, micro.where)[micro.before_M]


def token_logprobs(model: Any, hidden_MD: Tensor, micro: MicroBatch, temperature: float) -> tuple[Tensor, Tensor]:
    """Logprobs and entropies of the acted tokens, both [M]."""
    head = model.get_output_embeddings()
    return head_logprobs(hidden_MD, head.weight, getattr(head, "bias", None), micro.labels_M, temperature)


def spread_over(batch: Batch, pieces_M: Iterable[Tensor]) -> Tensor:
    """One number an acted token, micro-batch by micro-batch, to [B,T] in float32 or better; 0 elsewhere."""
    values_M = torch.cat([batch.rewards_BT.new_zeros(0), *pieces_M])
    return values_M.new_zeros(batch.acted_BT.shape).masked_scatter(batch.acted_BT, values_M)
