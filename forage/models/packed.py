"""Rows of different lengths through a causal language model as one sequence, without padding.

All rows of a micro-batch stand one after another in one sequence of N tokens, on which every linear layer runs.
Only attention looks at rows: queries, keys and values are laid out in blocks of rows of similar length, attended
causally, and put back. A prompt that several rows share stands in the sequence once, in front of them.

    packed   [prompt | rest of row 0 | rest of row 1 | prompt' | ...]                                        N tokens
    block    [prompt | rest of row 0 ........]                                                         R rows, S slots
             [prompt | rest of row 1 | filler]

Works with every model that takes its attention from transformers' AttentionInterface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import scaled_dot_product_attention

from forage.errors import ConfigError

NAME = "forage_packed"
FILL = 0.8  # a row joins a block if it fills at least this share of its slots


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that are attended together. `slots` of all blocks of a layout are numbered through."""

    rows: int
    slots: int  # per row


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each token of a packed sequence stands in the blocks."""

    blocks: tuple[Block, ...]
    token_of_slot: Tensor  # int64 [all slots]: the packed token in it; filler repeats some token
    slot_of_token: Tensor  # int64 [N]: the slot whose attention output is the token's
    copies: tuple[tuple[slice, Tensor], ...]  # shared prompts: their packed tokens, int64 [copies, P] of further slots

    def to(self, device: torch.device) -> Layout:
        """The same layout with its indices on `device`."""
        copies = tuple((prompt, slots.to(device)) for prompt, slots in self.copies)
        return Layout(self.blocks, self.token_of_slot.to(device), self.slot_of_token.to(device), copies)

    @property
    def padding(self) -> float:
        """Share of the slots that is filler or a further copy of a shared prompt."""
        return 1 - len(self.slot_of_token) / max(len(self.token_of_slot), 1)


def layout(rows: Sequence[Tensor], shared: Sequence[slice] = (), fill: float = FILL) -> Layout:
    """Arrange rows in blocks.

    Args:
        rows: packed token numbers of each row, in order (int64, on the CPU). Rows may share leading tokens.
        shared: the packed slices that more than one row begins with.
        fill: smallest share of a block's width that a row in it may have.
    """
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    members: list[list[int]] = []
    for row in order:
        if members and len(rows[row]) >= fill * len(rows[members[-1][0]]):
            members[-1].append(row)
        else:
            members.append([row])
    blocks = tuple(Block(len(block), len(rows[block[0]])) for block in members)
    slots = [_widen(rows[row], len(rows[block[0]])) for block in members for row in block]
    token_of_slot = torch.cat(slots)
    starts = torch.tensor([0, *(len(slot) for slot in slots)]).cumsum(0)[:-1].tolist()
    start_of_row = dict(zip((row for block in members for row in block), starts, strict=True))
    slot_of_token = torch.empty(int(token_of_slot.max()) + 1, dtype=torch.int64)
    for row, tokens in enumerate(rows):
        slot_of_token[tokens] = torch.arange(start_of_row[row], start_of_row[row] + len(tokens))
    copies = []
    for prompt in shared:
        firsts = [start_of_row[row] for row, tokens in enumerate(rows) if int(tokens[0]) == prompt.start]
        further = [first for first in firsts if first != int(slot_of_token[prompt.start])]
        offsets = torch.arange(prompt.stop - prompt.start)
        copies.append((prompt, torch.tensor(further)[:, None] + offsets))
    return Layout(blocks, token_of_slot, slot_of_token, tuple(copies))


def _widen(tokens: Tensor, width: int) -> Tensor:
    """Filler repeats the row's last token: it stands behind every real one, so causal attention never looks at it."""
    return torch.cat([tokens, tokens[-1:].expand(width - len(tokens))])


def check_packable(model: Any) -> None:
    """Compare the logits of two short rows, packed and plain.

    Raises:
        ConfigError: they differ; this architecture does something else than causal attention and a linear head.
    """
    tokens_N = torch.arange(1, 8, device=model.device) % model.config.vocab_size
    rows = [torch.arange(0, 4), torch.arange(4, 7)]
    where = layout(rows).to(model.device)
    positions_N = torch.cat([torch.arange(len(row)) for row in rows]).to(model.device)
    with torch.no_grad(), attend_packed(model):
        packed = model.get_output_embeddings()(hidden_states(model, tokens_N, positions_N, where))
    with torch.no_grad():
        plain = torch.cat([model(input_ids=tokens_N[row][None], use_cache=False).logits[0] for row in rows])
    if not torch.allclose(packed, plain, rtol=1e-3, atol=1e-3, equal_nan=True):
        difference = float((packed - plain).abs().max())
        raise ConfigError(
            f"{type(model).__name__} can't be trained by learner.kind = 'local': its logits in packed rows differ from "
            f"its own by {difference:.2g}. Models with plain causal attention and a linear head can (Llama, Qwen, ...)"
        )


def hidden_states(model: Any, tokens_N: Tensor, positions_N: Tensor, where: Layout) -> Tensor:
    """Final hidden states [N,D] of a packed sequence. To be called inside `attend_packed`."""
    output = model.base_model(
        input_ids=tokens_N[None], position_ids=positions_N[None], use_cache=False, forage_layout=where
    )
    hidden_ND: Tensor = output.last_hidden_state[0]
    return hidden_ND


@contextmanager
def attend_packed(model: Any) -> Iterator[None]:
    """Route the model's attention through this file, while other users of the model keep their own.

    It must cover the backward pass too: gradient checkpointing looks the attention up again there.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attention)
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 (causality is all the mask there is)
    *,
    forage_layout: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each row of a packed sequence, as transformers' attention interface wants it.

    Args:
        module: the attention layer.
        query, key, value: [1, heads, N, head_dim]; keys and values may have fewer heads.
        attention_mask: none is made for this implementation.
        forage_layout: where the rows are.
        scaling: of the scores; 1 / sqrt(head_dim) if None.
        sliding_window: a token sees itself and this many minus one before it.
        options: of other implementations.

    Returns:
        [1, N, heads, head_dim], and no weights.

    Raises:
        ConfigError: the layer does something to the scores that is not done here.
    """
    refused = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if refused:
        raise ConfigError(f"{type(module).__name__} can't be packed: its attention uses {', '.join(refused)}")
    queries, keys, values = (_unpack(states, forage_layout) for states in (query, key, value))
    outputs = [
        _attend(q, k, v, scaling, sliding_window).flatten(0, 1) for q, k, v in zip(queries, keys, values, strict=True)
    ]
    packed = _Pack.apply(torch.cat(outputs).flatten(1), forage_layout)  # type: ignore[no-untyped-call]
    return packed.view(1, query.shape[2], query.shape[1], query.shape[3]), None


def _unpack(states: Tensor, where: Layout) -> list[Tensor]:
    """[1,H,N,D] to one [R,S,H,D] a block."""
    _, heads, tokens, size = states.shape
    flat = _Unpack.apply(states[0].transpose(0, 1).reshape(tokens, heads * size), where)  # type: ignore[no-untyped-call]
    parts = flat.split([block.rows * block.slots for block in where.blocks])
    return [part.view(block.rows, block.slots, heads, size) for part, block in zip(parts, where.blocks, strict=True)]


def _attend(q: Tensor, k: Tensor, v: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """Causal attention of [R,S,H,D]; a window that is shorter than the rows needs a mask."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:  # its backward is 3x slower there than float32's
        return _attend(q.float(), k.float(), v.float(), scaling, window).to(q.dtype)
    slots = q.shape[1]
    mask = None
    if window is not None and window < slots:
        distance = torch.arange(slots, device=q.device)[:, None] - torch.arange(slots, device=q.device)
        mask = (distance >= 0) & (distance < window)
    attended = scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return attended.transpose(1, 2)


class _Unpack(Function):
    """Packed [N,E] to slots [all slots,E]. Backward: each token has one slot, and shared prompts have more."""

    @staticmethod
    def forward(ctx: Any, states_NE: Tensor, where: Layout) -> Tensor:
        ctx.where = where
        return states_NE.index_select(0, where.token_of_slot)

    @staticmethod
    def backward(ctx: Any, grad_SE: Tensor) -> tuple[Tensor, None]:
        where: Layout = ctx.where
        grad_NE = grad_SE.index_select(0, where.slot_of_token)
        for prompt, slots_CP in where.copies:
            further = grad_SE.index_select(0, slots_CP.flatten()).view(*slots_CP.shape, -1)
            grad_NE[prompt] += further.sum(0)
        return grad_NE, None


class _Pack(Function):
    """Slots [all slots,E] to packed [N,E]. Backward: slots that nobody reads get no gradient."""

    @staticmethod
    def forward(ctx: Any, states_SE: Tensor, where: Layout) -> Tensor:
        ctx.where = where
        return states_SE.index_select(0, where.slot_of_token)

    @staticmethod
    def backward(ctx: Any, grad_NE: Tensor) -> tuple[Tensor, None]:
        where: Layout = ctx.where
        grad_SE = grad_NE.new_zeros(len(where.token_of_slot), grad_NE.shape[1])
        return grad_SE.index_copy_(0, where.slot_of_token, grad_NE), None
