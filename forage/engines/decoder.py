"""The forward of Llama, Qwen2 and Qwen3 over KV slots: one function for prefill, one for decoding.

Axes beside those of `forage.types`: R rows (slots 0..R-1, one new token each), H key/value heads, D head width,
L positions attended to, B and Q the blocks of queries that prefill pads together and their length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import embedding

from forage.engines.attention import attend, hide_later, split_heads
from forage.engines.kernels import Choice, choose
from forage.engines.kv import KVCache, kv_dtype
from forage.engines.rotary import rotation_table
from forage.engines.weights import Layer, Shape, Weights

if TYPE_CHECKING:
    from torch import Tensor

QUERY_BLOCK = 256
"""Queries of one context that attend together; a longer prefill is cut, so that no block sees all later keys."""
SCORES = 1 << 24
"""Most attention scores computed at once."""


@dataclass(frozen=True, slots=True)
class Piece:
    """New tokens of one slot, to be prefilled from position `start` on."""

    slot: int
    start: int
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class Block:
    """`count` queries of one slot, packed from `offset` on, the last of which sees `length` positions."""

    slot: int
    offset: int
    count: int
    length: int


@dataclass(frozen=True, slots=True)
class Attending:
    """Blocks of like size, padded to one: which packed tokens ask, which slots answer, and what they may not see."""

    packed_BQ: Tensor
    slots_B: list[int]
    hidden_BQL: Tensor


class Decoder:
    """A decoder-only transformer whose weights are copied from a Hugging Face model.

    Args:
        model: a Llama, Qwen2 or Qwen3 causal LM; its device is used.
        slots: contexts held at once.
        max_tokens: length of a context.
        dtype: of weights and activations.
        kernels: see `choose`.

    Raises:
        ConfigError: the model has something that is not computed exactly here.
    """

    def __init__(self, model: Any, slots: int, max_tokens: int, dtype: torch.dtype, kernels: Choice = "auto") -> None:
        self.shape = s = Shape.of(model)
        self.device: torch.device = model.device
        self._rotations = rotation_table(model, max_tokens, s.head_dim)
        self.weights = Weights(s, dtype, self.device)
        self.weights.load(model.state_dict().items())
        cache_dtype = kv_dtype(dtype, self.device)
        chosen = choose(kernels, self.device)
        sizes = s.layers, slots, s.kv_heads, s.head_dim, max_tokens
        self.kv = KVCache(*sizes, cache_dtype, self.device, keys_by_position=chosen.keys_by_position)
        self._numbers = torch.arange(max(slots, max_tokens), device=self.device)
        self.kernels = chosen(s, self.kv, self._rotations)

    @torch.inference_mode()
    def decode(self, tokens_R: Tensor, positions_R: Tensor, length: int) -> Tensor:
        """Logits float32 [R, V] after one more token in each of the first R slots; its KV is stored.

        `length` is the longest of these contexts, the new token included.
        """
        x = embedding(tokens_R, self.weights.embedding)
        attention = self.kernels.attention(positions_R, length)
        for i, layer in enumerate(self.weights.layers):
            x = self._finish(layer, x, attention(i, layer, self._heads(layer, x)))
        return torch.mm(self.kernels.norm(x, self.weights.norm), self.weights.head).float()

    @torch.inference_mode()
    def prefill(self, pieces: Sequence[Piece]) -> None:
        """Store the KV of new tokens, packed one piece after another."""
        for piece in pieces:
            self.kv.prefixes.changing(piece.slot, piece.start)
        tokens, slots, positions = self._pack(pieces)
        plan = [self._padded(blocks, positions) for blocks in self._alike(pieces)]
        rotation = self._rotations[positions, None]
        x = embedding(tokens, self.weights.embedding)
        for i, layer in enumerate(self.weights.layers[:-1]):
            q, k, v = split_heads(self._heads(layer, x), layer, rotation, self.shape)
            self.kv.write(i, slots, positions, k, v)
            x = self._finish(layer, x, self._attend_packed(i, q, plan))
        last, skip = self.weights.layers[-1], self.shape.heads  # of which no one reads more than keys and values
        _, k, v = split_heads(self._heads(last, x, skip), last, rotation, self.shape, skip)
        self.kv.write(self.shape.layers - 1, slots, positions, k, v)

    def _pack(self, pieces: Sequence[Piece]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, slots and positions [N] of all pieces."""
        tokens = torch.tensor([token for piece in pieces for token in piece.tokens], device=self.device)
        rows = torch.tensor([[p.slot, p.start, len(p.tokens)] for p in pieces], device=self.device)
        slots, starts, counts = rows.unbind(1)
        # a token's position is its place in the pack, less that of its piece's first, plus the piece's start
        shifts = (starts - (counts.cumsum(0) - counts)).repeat_interleave(counts)
        return tokens, slots.repeat_interleave(counts), shifts + torch.arange(len(tokens), device=self.device)

    def _alike(self, pieces: Sequence[Piece]) -> Iterator[list[Block]]:
        """Blocks of queries that waste little when padded together: alike in count and length within a factor of 2."""
        classes: dict[tuple[int, int], list[Block]] = defaultdict(list)
        for block in _blocks(pieces):
            classes[(block.count - 1).bit_length(), (block.length - 1).bit_length()].append(block)
        for (count, length), blocks in classes.items():
            n = max(1, SCORES // (self.shape.heads << (count + length)))
            yield from (blocks[i : i + n] for i in range(0, len(blocks), n))

    def _padded(self, blocks: Sequence[Block], positions_N: Tensor) -> Attending:
        """Short blocks repeat their last query, which changes nothing."""
        offsets, counts = torch.tensor([[b.offset, b.count] for b in blocks], device=self.device).unbind(1)
        steps_BQ = torch.minimum(self._numbers[: max(b.count for b in blocks)], counts[:, None] - 1)
        packed_BQ = offsets[:, None] + steps_BQ
        numbers = self._numbers[: max(b.length for b in blocks)]
        hidden = hide_later(positions_N[packed_BQ], numbers, self.kv.dtype)
        return Attending(packed_BQ, [b.slot for b in blocks], hidden)

    def _heads(self, layer: Layer, x: Tensor, skip: int = 0) -> Tensor:
        """Products with queries, keys and values [N, -1]; the first `skip` heads of queries are left out."""
        columns = slice(skip * self.shape.head_dim, None)
        bias = None if layer.qkv_bias is None else layer.qkv_bias[columns]
        return _linear(self.kernels.norm(x, layer.norm), layer.qkv[:, columns], bias)

    def _attend_packed(self, layer: int, q: Tensor, plan: Sequence[Attending]) -> Tensor:
        """Attention of packed queries [N, heads, D], all at once for blocks that are alike; [N, heads * D]."""
        attended = torch.empty_like(q).flatten(1)
        for part in plan:
            keys, values = self.kv.take(layer, part.slots_B, part.hidden_BQL.shape[-1])
            attended[part.packed_BQ.flatten()] = attend(q[part.packed_BQ], keys, values, part.hidden_BQL)
        return attended

    def _finish(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of a layer, added to the residual stream `x` in place."""
        _add_linear(x, attended, layer.out, layer.out_bias)
        normed = self.kernels.norm(x, layer.mlp_norm)
        gate, up = (_linear(normed, *side) for side in ((layer.gate, layer.gate_bias), (layer.up, layer.up_bias)))
        return _add_linear(x, self.kernels.gate(gate, up), layer.down, layer.down_bias)


def _blocks(pieces: Sequence[Piece]) -> Iterator[Block]:
    offset = 0
    for piece in pieces:
        n = len(piece.tokens)
        for first in range(0, n, QUERY_BLOCK):
            count = min(QUERY_BLOCK, n - first)
            yield Block(piece.slot, offset + first, count, piece.start + first + count)
        offset += n


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


def _add_linear(x: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x.addmm_(inputs, weight)
    return x if bias is None else x.add_(bias)
