"""Rotary position embedding as one complex product, with the frequencies of Hugging Face's own module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from forage.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


def rotation_table(model: Any, max_tokens: int, head_dim: int) -> Tensor:
    """cos + i sin of every position, complex64 [max_tokens, head_dim / 2], attention scaling included.

    Raises:
        ConfigError: the frequencies of the first positions depend on the length of the whole context (rope types
            `dynamic` and `longrope` beyond the original length), or only a part of each head is rotated.
    """
    config, device = model.config, model.device
    parameters = config.rope_parameters
    rope_type = parameters["rope_type"]
    if "dynamic" in rope_type or rope_type == "longrope":
        original = parameters.get("original_max_position_embeddings") or config.max_position_embeddings
        if max_tokens > original:
            raise ConfigError(
                f"rope type {rope_type!r} changes the KV of earlier tokens once a context passes {original} tokens; "
                f"set engine.max_tokens to at most {original} (it is {max_tokens})"
            )
    positions = torch.arange(max_tokens, device=device)[None]
    cos, sin = model.model.rotary_emb(torch.empty(0, dtype=torch.float32, device=device), positions)
    if cos.shape[-1] != head_dim:
        raise ConfigError(
            f"the local engine rotates whole heads of {head_dim}; this model rotates {cos.shape[-1]} of it"
        )
    half = head_dim // 2
    return torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())


def rotate_(heads_NHD: Tensor, rotation_N: Tensor) -> None:
    """Turn interleaved queries and keys [N, H, D] in place by `rotation_N` [N, 1, D / 2], in float32."""
    pairs = torch.view_as_complex(heads_NHD.float().view(*heads_NHD.shape[:-1], -1, 2))
    turned = torch.view_as_real(pairs.mul_(rotation_N)).view(heads_NHD.shape)
    if heads_NHD.dtype != torch.float32:  # where it is, `pairs` was a view
        heads_NHD.copy_(turned)
