"""Draws one token a row from logits, on any device, without a sort and without `multinomial`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 128
BELOW_ONE = 1 - 2**-24
"""Times this, a positive float32 becomes the next smaller one."""


def uniforms(seed: int, n: int) -> np.ndarray:
    """The `n` numbers in [0, 1) that a turn of this seed is sampled with, one a token; multiples of 2^-24."""
    return np.random.Generator(np.random.Philox(key=seed)).random(n, dtype=np.float32)


def sample(logits_RV: Tensor, temperature: float | Tensor, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [R] and the log-probabilities they were sampled at.

    `temperature` is one number, or one a row [R]. At 0 a row takes its best token, with the log-probability at
    temperature 1. Else it inverts the cumulative distribution of softmax(logits / temperature) at its uniform number,
    so that a row's token depends on nothing but its own logits and number.
    """
    if isinstance(temperature, float):
        greedy = temperature == 0
        scaled_RV = logits_RV if temperature in (0, 1) else logits_RV / temperature
        probabilities_RV = torch.softmax(scaled_RV, dim=-1)
        tokens_R = logits_RV.argmax(-1) if greedy else invert(probabilities_RV, uniform_R)
    else:
        greedy_R = temperature == 0
        probabilities_RV = torch.softmax(logits_RV / torch.where(greedy_R, 1.0, temperature)[:, None], dim=-1)
        tokens_R = torch.where(greedy_R, logits_RV.argmax(-1), invert(probabilities_RV, uniform_R))
    return tokens_R, probabilities_RV.gather(1, tokens_R[:, None]).squeeze(1).log()


def invert(weights_RV: Tensor, uniform_R: Tensor) -> Tensor:
    """The first index whose cumulative weight exceeds `uniform` times the sum, [R].

    Finds the block of the vocabulary first, then the token in it: one cheap sum over the vocabulary in place of a
    cumulative one. Never returns an index of weight 0, because both comparisons are strict and both targets lie
    strictly below the last cumulative weight. (The clamps matter to weights that are not finite, whose index is any.)
    """
    R, V = weights_RV.shape
    if V % BLOCK:
        weights_RV = pad(weights_RV, (0, BLOCK - V % BLOCK))
    blocks = weights_RV.view(R, -1, BLOCK)
    ends = blocks.sum(-1).cumsum(-1)
    target = uniform_R[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, target, right=True).clamp_(max=blocks.shape[1] - 1)
    start = pad(ends, (1, 0)).gather(1, block)
    within = blocks[torch.arange(R, device=blocks.device), block.squeeze(1)].cumsum(-1)
    target = torch.minimum((target - start).clamp_(min=0), within[:, -1:] * BELOW_ONE)
    token = block * BLOCK + torch.searchsorted(within, target, right=True)
    return token.clamp_(max=V - 1).squeeze(1)
