"""The KV of every slot, allocated once.

Axes beside those of `forage.types`: S slots, R rows (slots being decoded), H key/value heads, D head width, C context
positions of a slot. The last axis of keys is the position and that of values the width: so, at one query a row, a CPU
streams both products (keys the other way round take twice the time).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from forage.engines.prefixes import Prefixes

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
    """Keys [layers, S, H, D, C] and values [layers, S, H, C, D], allocated once.

    Args:
        layers: decoder layers.
        slots: contexts held at once.
        heads: key/value heads.
        head_dim: width of a head.
        max_tokens: positions of one slot.
        keys_by_position: keys lie in memory as values do, [layers, S, H, C, D], for kernels that take one position
            after another; their shape is the same.

    Attributes:
        prefixes: what slots have in common. Who stores KV in a slot says so before, by `prefixes.changing`.
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
        *,
        keys_by_position: bool = False,
    ) -> None:
        self.dtype = dtype
        self.slots = slots
        self.prefixes = Prefixes(slots)
        positions = _padded(max_tokens)
        across = (layers, slots, heads, head_dim, positions)
        along = (layers, slots, heads, positions, head_dim)
        self._by_position = keys_by_position
        self._keys = torch.zeros(along if keys_by_position else across, dtype=dtype, device=device)
        if keys_by_position:
            self._keys = self._keys.mT
        self._values = torch.zeros(along, dtype=dtype, device=device)

    @property
    def bytes(self) -> int:
        """Memory taken."""
        return self._keys.nbytes + self._values.nbytes

    def write(self, layer: int, slots_N: Tensor, positions_N: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [N, H, D] of tokens at these slots and positions."""
        self._keys[layer][slots_N, :, :, positions_N] = keys.to(self.dtype)
        self._values[layer][slots_N, :, positions_N] = values.to(self.dtype)

    def layers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys [S, H, D, C] and values [S, H, C, D] of each layer."""
        return zip(self._keys, self._values, strict=True)

    def first(self, layer: int, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys [rows * H, D, length] and values [rows * H, length, D] of the first slots, as views."""
        keys, values = self._keys[layer, :rows, ..., :length], self._values[layer, :rows, :, :length]
        return keys.flatten(0, 1), values.flatten(0, 1)

    def take(self, layer: int, slots: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
        """Keys [n * H, D, length] and values [n * H, length, D] of any slots, as copies."""
        # stack, because index_select of such a view is 17 times slower on a CPU
        keys = [self._keys[layer, slot, ..., :length] for slot in slots]
        stacked = torch.stack([key.mT for key in keys]).mT if self._by_position else torch.stack(keys)
        values = torch.stack([self._values[layer, slot, :, :length] for slot in slots])
        return stacked.flatten(0, 1), values.flatten(0, 1)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot to another."""
        self._copy(source, target, length)
        self.prefixes.copied(source, target, length)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a slot that nothing needs any more to another."""
        self._copy(source, target, length)
        self.prefixes.swapped(source, target, length)

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` positions of two slots."""
        for slots in self._views(length):
            kept = slots[:, one].clone()
            slots[:, one] = slots[:, other]
            slots[:, other] = kept
        self.prefixes.swapped(one, other, length)

    def _copy(self, source: int, target: int, length: int) -> None:
        self.prefixes.changing(target, 0)
        for slots in self._views(length):
            slots[:, target] = slots[:, source]

    def _views(self, length: int) -> tuple[Tensor, Tensor]:
        return self._keys[..., :length], self._values[..., :length, :]
