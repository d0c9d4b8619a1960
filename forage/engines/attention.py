"""Attention in torch: of a prefill everywhere, and of decoding where no compiled kernel is used.

Axes beside those of `forage.types`: N tokens, B and Q blocks of queries and their length, H key/value heads, D head
width, L positions attended to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import rms_norm

from forage.engines.rotary import rotate_

if TYPE_CHECKING:
    from torch import Tensor

    from forage.engines.weights import Layer, Shape


def split_heads(
    heads: Tensor, layer: Layer, rotation_N: Tensor, shape: Shape, skip: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [N, heads, D], keys and values [N, H, D] of products [N, -1], normed and turned in place.

    The first `skip` heads of queries are not among the products.
    """
    heads = heads.view(len(heads), -1, shape.head_dim)
    q, k, v = torch.split(heads, [shape.heads - skip, shape.kv_heads, shape.kv_heads], dim=1)
    if layer.q_norm is not None and layer.k_norm is not None:
        q.copy_(rms_norm(q, (shape.head_dim,), layer.q_norm, shape.eps))
        k.copy_(rms_norm(k, (shape.head_dim,), layer.k_norm, shape.eps))
    rotate_(heads[:, : -shape.kv_heads], rotation_N)
    return q, k, v


def hide_later(positions_BQ: Tensor, numbers_L: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, Q, L], to be added to scores: -inf where a key stands behind its query, else 0. `numbers_L` is 0 to L - 1."""
    later = numbers_L > positions_BQ[..., None]
    return torch.zeros(later.shape, dtype=dtype, device=later.device).masked_fill_(later, -torch.inf)


def attend(q: Tensor, keys: Tensor, values: Tensor, hidden_BQL: Tensor) -> Tensor:
    """Attention of queries [B, Q, heads, D] over keys [B * H, D, L] and values [B * H, L, D]; [B * Q, heads * D].

    Products of whole groups of heads, because a CPU's `scaled_dot_product_attention` is slow at few queries.
    """
    B, Q, L = hidden_BQL.shape
    H, D = len(keys) // B, q.shape[-1]
    grouped = (q * D**-0.5).to(keys.dtype).view(B, Q, H, -1, D).permute(0, 2, 3, 1, 4).reshape(B * H, -1, D)
    scores = torch.bmm(grouped, keys)
    scores.view(B, -1, Q, L).add_(hidden_BQL[:, None])
    attended = torch.bmm(torch.softmax(scores, dim=-1), values)
    attended = attended.view(B, H, -1, Q, D).permute(0, 3, 1, 2, 4).reshape(B * Q, -1)
    return attended.to(q.dtype)
