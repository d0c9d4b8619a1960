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
from torch.nn.functional import embedding, rms_norm, silu

from forage.engines.kv import KVCache, kv_dtype
from forage.engines.rotary import rotate_, rotation_table
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

    Raises:
        ConfigError: the model has something that is not computed exactly here.
    """

    def __init__(self, model: Any, slots: int, max_tokens: int, dtype: torch.dtype) -> None:
        self.shape = s = Shape.of(model)
        self.device: torch.device = model.device
        self._rotations = rotation_table(model, max_tokens, s.head_dim)
        self.weights = Weights(s, dtype, self.device)
        self.weights.load(model.state_dict().items())
        cache_dtype = kv_dtype(dtype, self.device)
        self.kv = KVCache(s.layers, slots, s.kv_heads, s.head_dim, max_tokens, cache_dtype, self.device)
        self._numbers = torch.arange(max(slots, max_tokens), device=self.device)
        self._scale = s.head_dim**-0.5

    @torch.inference_mode()
    def decode(self, tokens_R: Tensor, positions_R: Tensor, length: int) -> Tensor:
        """Logits float32 [R, V] after one more token in each of the first R slots; its KV is stored.

        `length` is the longest of these contexts, the new token included.
        """
        R = len(tokens_R)
        x = embedding(tokens_R, self.weights.embedding)
        rotation = self._rotations[positions_R, None]
        slots = self._numbers[:R]
        hidden = self._hidden(positions_R[:, None], length)
        for i, layer in enumerate(self.weights.layers):
            q, k, v = self._project(layer, x, rotation)
            self.kv.write(i, slots, positions_R, k, v)
            attended = self._attend(q[:, None], *self.kv.first(i, R, length), hidden)
            x = self._finish(layer, x, attended)
        return torch.mm(self._norm(x, self.weights.norm), self.weights.head).float()

    @torch.inference_mode()
    def prefill(self, pieces: Sequence[Piece]) -> None:
        """Store the KV of new tokens, packed one piece after another."""
        tokens, slots, positions = self._pack(pieces)
        plan = [self._padded(blocks, positions) for blocks in self._alike(pieces)]
        rotation = self._rotations[positions, None]
        x = embedding(tokens, self.weights.embedding)
        for i, layer in enumerate(self.weights.layers[:-1]):
            q, k, v = self._project(layer, x, rotation)
            self.kv.write(i, slots, positions, k, v)
            x = self._finish(layer, x, self._attend_packed(i, q, plan))
        _, k, v = self._project(self.weights.layers[-1], x, rotation, skip=self.shape.heads)  # no one reads the rest
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
        length = max(b.length for b in blocks)
        return Attending(packed_BQ, [b.slot for b in blocks], self._hidden(positions_N[packed_BQ], length))

    def _hidden(self, positions_BQ: Tensor, length: int) -> Tensor:
        """[B, Q, L], to be added to scores: -inf where a key stands behind its query, else 0."""
        later = self._numbers[:length] > positions_BQ[..., None]
        return torch.zeros(later.shape, dtype=self.kv.dtype, device=self.device).masked_fill_(later, -torch.inf)

    def _project(self, layer: Layer, x: Tensor, rotation_N: Tensor, skip: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [N, heads, D], keys and values [N, H, D]; the first `skip` heads of queries are left out."""
        s = self.shape
        columns = slice(skip * s.head_dim, None)
        bias = None if layer.qkv_bias is None else layer.qkv_bias[columns]
        heads = _linear(self._norm(x, layer.norm), layer.qkv[:, columns], bias).view(len(x), -1, s.head_dim)
        q, k, v = torch.split(heads, [s.heads - skip, s.kv_heads, s.kv_heads], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q.copy_(rms_norm(q, (s.head_dim,), layer.q_norm, s.eps))
            k.copy_(rms_norm(k, (s.head_dim,), layer.k_norm, s.eps))
        rotate_(heads[:, : -s.kv_heads], rotation_N)
        return q, k, v

    def _attend_packed(self, layer: int, q: Tensor, plan: Sequence[Attending]) -> Tensor:
        """Attention of packed queries [N, heads, D], all at once for blocks that are alike; [N, heads * D]."""
        attended = torch.empty_like(q).flatten(1)
        for part in plan:
            keys, values = self.kv.take(layer, part.slots_B, part.hidden_BQL.shape[-1])
            attended[part.packed_BQ.flatten()] = self._attend(q[part.packed_BQ], keys, values, part.hidden_BQL)
        return attended

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, hidden_BQL: Tensor) -> Tensor:
        """Attention of queries [B, Q, heads, D] over keys [B * H, D, L] and values [B * H, L, D]; [B * Q, heads * D].

        Products of whole groups of heads, because a CPU's `scaled_dot_product_attention` is slow at few queries.
        """
        B, Q, L = hidden_BQL.shape
        H, D = self.shape.kv_heads, self.shape.head_dim
        q = (q * self._scale).to(keys.dtype).view(B, Q, H, -1, D).permute(0, 2, 3, 1, 4).reshape(B * H, -1, D)
        scores = torch.bmm(q, keys)
        scores.view(B, -1, Q, L).add_(hidden_BQL[:, None])
        attended = torch.bmm(torch.softmax(scores, dim=-1), values)
        attended = attended.view(B, H, -1, Q, D).permute(0, 3, 1, 2, 4).reshape(B * Q, -1)
        return attended.to(self.weights.embedding.dtype)

    def _finish(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of a layer, added to the residual stream `x` in place."""
        _add_linear(x, attended, layer.out, layer.out_bias)
        normed = self._norm(x, layer.mlp_norm)
        gate = silu(_linear(normed, layer.gate, layer.gate_bias), inplace=True)
        return _add_linear(x, gate.mul_(_linear(normed, layer.up, layer.up_bias)), layer.down, layer.down_bias)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return _rms_norm(x, weight, self.shape.eps)


def _blocks(pieces: Sequence[Piece]) -> Iterator[Block]:
    offset = 0
    for piece in pieces:
        n = len(piece.tokens)
        for first in range(0, n, QUERY_BLOCK):
            count = min(QUERY_BLOCK, n - first)
            yield Block(piece.slot, offset + first, count, piece.start + first + count)
        offset += n


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Torch's own, in fewer operations where it has no kernel of its own: on a CPU."""
    if x.device.type != "cpu":
        return rms_norm(x, (x.shape[-1],), weight, eps)
    exact = x.float()
    scale = exact.square().sum(-1, keepdim=True).div_(x.shape[-1]).add_(eps).rsqrt_()
    return (exact * scale).mul_(weight).to(x.dtype)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


def _add_linear(x: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x.addmm_(inputs, weight)
    return x if bias is None else x.add_(bias)
