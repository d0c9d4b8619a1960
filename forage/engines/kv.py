"""The KV of every slot in one preallocated tensor.

Axes beside those of `forage.types`: S slots, R rows (slots being decoded), H key/value heads, D head width, C context
positions of a slot. Positions are the last axis of keys and values alike: at one query a row that is the order in
which a CPU streams both products, and one indexed write then serves both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

LANES = 16
"""Positions are rounded up to whole vectors, plus one vector so that heads don't lie a power of two apart in cache."""


def kv_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What keys and values are kept in: float32 on a CPU, whose batched bfloat16 products are the slower ones."""
    return torch.float32 if device.type == "cpu" else dtype


def kv_bytes(config: Any, slots: int, max_tokens: int, dtype: torch.dtype = torch.float32) -> int:
    """Bytes that the KV of `slots` contexts of `max_tokens` takes, for a Hugging Face `config`.

    `dtype` is that of the cache, see `kv_dtype`: on a CPU always float32.
    """
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    positions = 2 * config.num_hidden_layers * slots * config.num_key_value_heads * _padded(max_tokens)
    return int(positions * head_dim * dtype.itemsize)


def _padded(max_tokens: int) -> int:
    return -(-max_tokens // LANES) * LANES + LANES


class KVCache:
    """Keys and values [layers, 2, S, H, D, C], allocated once; 0 is the key, 1 the value.

    Args:
        layers: decoder layers.
        slots: contexts held at once.
        heads: key/value heads.
        head_dim: width of a head.
        max_tokens: positions of one slot.
    """

    def __init__(
        self,
        layers: int,
        slots: int,
        heads: int,
        head_dim: int,
        max_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (layers, 2, slots, heads, head_dim, _padded(max_tokens))
        self.tensor = torch.zeros(shape, dtype=dtype, device=device)
        strides = self.tensor.stride()
        axes = [torch.arange(n, device=device) * stride for n, stride in zip(shape[1:5], strides[1:5], strict=True)]
        kind, slot, head, width = axes
        self._slot_offsets = slot
        self._element_offsets = kind[:, None, None] + head[:, None] + width

    def index(self, slots_N: Tensor, positions_N: Tensor) -> Tensor:
        """Where the keys and values of tokens lie within any layer, [N, 2, H, D], for `write`."""
        return (self._slot_offsets[slots_N] + positions_N)[:, None, None, None] + self._element_offsets

    def write(self, layer: int, index: Tensor, keys_values: Tensor) -> None:
        """Store keys and values [N, 2, H, D] at `index`."""
        self.tensor[layer].view(-1)[index] = keys_values.to(self.tensor.dtype)

    def first(self, layer: int, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the first `rows` slots, two views [rows * H, D, length]."""
        keys, values = self.tensor[layer, :, :rows, ..., :length]
        return keys.flatten(0, 1), values.flatten(0, 1)

    def take(self, layer: int, slots: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of any slots, two copies [n * H, D, length]."""
        keys, values = self.tensor[layer, ..., :length].index_select(1, slots)
        return keys.flatten(0, 1), values.flatten(0, 1)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot to another."""
        self.tensor[:, :, target, ..., :length] = self.tensor[:, :, source, ..., :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` positions of two slots."""
        kept = self.tensor[:, :, one, ..., :length].clone()
        self.copy(other, one, length)
        self.tensor[:, :, other, ..., :length] = kept
