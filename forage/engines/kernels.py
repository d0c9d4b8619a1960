"""What decoding does between its matrix products: norms, gates, attention of one new token a row, and the draw.

In torch for every device; compiled (`forage.engines.compiled`) for CPUs, where small operations cost the most.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn.functional import rms_norm, silu

from forage.engines.attention import attend, hide_later, split_heads
from forage.engines.rows import step
from forage.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from torch import Tensor

    from forage.engines.kv import KVCache
    from forage.engines.rows import State
    from forage.engines.weights import Layer, Shape

Choice = Literal["auto", "torch", "numba"]
Attend = Callable[[int, "Layer", "Tensor"], "Tensor"]
"""(number of the layer, the layer, its products with queries, keys and values [R, -1]) -> attended [R, heads * D]."""


def choose(choice: Choice, device: torch.device) -> type[TorchKernels]:
    """The kernels for a device; "auto" is compiled ones where they can be had.

    Raises:
        ConfigError: compiled kernels are asked for on another device than a CPU.
        MissingExtra: they are asked for and numba is not installed.
    """
    on_cpu, installed = device.type == "cpu", find_spec("numba") is not None
    if choice == "numba" and not on_cpu:
        raise ConfigError("engine.kernels = 'numba' is for a CPU; on this device choose 'torch' or 'auto'")
    if choice == "numba" and not installed:
        raise MissingExtra("numba", "fast")
    if choice == "torch" or not (on_cpu and installed):
        return TorchKernels
    from forage.engines.compiled import CompiledKernels

    return CompiledKernels


class TorchKernels:
    """The small operations of a decoder, in torch's own.

    Args:
        shape: the decoder's sizes.
        kv: where its KV is kept.
        rotations: of every position, complex [max_tokens, D / 2].
    """

    keys_by_position = False
    """See `KVCache`."""

    def __init__(self, shape: Shape, kv: KVCache, rotations: Tensor) -> None:
        self._shape = shape
        self._kv = kv
        self._rotations = rotations
        self._numbers = torch.arange(max(kv.slots, len(rotations)), device=rotations.device)

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """RMS norm of each row, times `weight`: torch's own, in fewer operations where that is no kernel, on a CPU."""
        if x.device.type != "cpu":
            return rms_norm(x, (x.shape[-1],), weight, self._shape.eps)
        exact = x.float()
        scale = exact.square().sum(-1, keepdim=True).div_(x.shape[-1]).add_(self._shape.eps).rsqrt_()
        return (exact * scale).mul_(weight).to(x.dtype)

    def gate(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) * up, in place of `gate`."""
        return silu(gate, inplace=True).mul_(up)

    def step(self, state: State, logits_RV: Tensor, temperature: float | Tensor, watched: Tensor) -> Tensor:
        """See `forage.engines.rows.step`."""
        return step(state, logits_RV, temperature, watched)

    def attention(self, positions_R: Tensor, length: int) -> Attend:
        """Attention of one new token in each of the first R slots, whose KV it stores too.

        `length` is the longest of these contexts, the new token included; all rows are read as far as that.
        """
        R = len(positions_R)
        slots, rotation = self._numbers[:R], self._rotations[positions_R, None]
        hidden = hide_later(positions_R[:, None], self._numbers[:length], self._kv.dtype)

        def attention(number: int, layer: Layer, heads: Tensor) -> Tensor:
            q, k, v = split_heads(heads, layer, rotation, self._shape)
            self._kv.write(number, slots, positions_R, k, v)
            return attend(q[:, None], *self._kv.first(number, R, length), hidden)

        return attention
