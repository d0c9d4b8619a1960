"""Rows of different lengths through a causal language model as one sequence, without padding.

All rows of a micro-batch stand one after another in one sequence of N tokens, on which every linear layer runs.
Only attention looks at rows: queries, keys and values are laid out in blocks of rows of similar length, attended
causally, and put back (`forage.models.layout`). A prompt that several rows share stands in the sequence once, in front
of them.

Works with every model that takes its attention from transformers' AttentionInterface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import scaled_dot_product_attention

from forage.errors import ConfigError
from forage.models.layout import Copies, Layout, layout

NAME = "forage_packed"


def check_packable(model: Any) -> None:
    """Compare the logits of two short rows, packed and plain, where they are wanted.

    Raises:
        ConfigError: they differ; this architecture does something else than causal attention and a linear head.
    """
    tokens_N = torch.arange(1, 8, device=model.device) % model.config.vocab_size
    rows = [torch.arange(0, 4), torch.arange(4, 7)]
    wanted = torch.tensor([1, 3, 4, 6], device=model.device)
    where = replace(layout(rows).to(model.device), wanted=wanted)
    positions_N = torch.cat([torch.arange(len(row)) for row in rows]).to(model.device)
    with torch.no_grad(), attend_packed(model):
        packed = model.get_output_embeddings()(hidden_states(model, tokens_N, positions_N, where))
    with torch.no_grad():
        plain = torch.cat([model(input_ids=tokens_N[row][None], use_cache=False).logits[0] for row in rows])
    packed, plain = packed[wanted], plain[wanted]
    if not torch.allclose(packed, plain, rtol=1e-3, atol=1e-3, equal_nan=True):
        difference = float((packed - plain).abs().max())
        raise ConfigError(
            f"{type(model).__name__} can't be trained by learner.kind = 'local': its logits in packed rows differ from "
            f"its own by {difference:.2g}. Models with plain causal attention and a linear head can (Llama, Qwen, ...)"
        )


def hidden_states(model: Any, tokens_N: Tensor, positions_N: Tensor, where: Layout) -> Tensor:
    """Final hidden states [N,D] of a packed sequence, right where the layout wants them. To be called inside
    `attend_packed`."""
    output = model.base_model(
        input_ids=tokens_N[None], position_ids=positions_N[None], use_cache=False, forage_layout=where
    )
    hidden_ND: Tensor = output.last_hidden_state[0]
    return hidden_ND


@contextmanager
def attend_packed(model: Any) -> Iterator[None]:
    """Route the model's attention through this file, while other users of the model keep their own; and leave out of
    the last layer's MLP what nobody reads.

    It must cover the backward pass too: gradient checkpointing looks the attention up again there.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attention)
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    hooks = _Narrow.hooks(model)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        config._attn_implementation = before


class _Narrow:
    """The last layer's MLP on the wanted tokens alone, 0 for all others: most tokens of an episode are passages, whose
    final states nobody reads. Its attention, just before, says which are wanted (when a checkpoint recomputes, too)."""

    @classmethod
    def hooks(cls, model: Any) -> list[Any]:
        """Hooks on the last layer, where it is made of `self_attn` and `mlp`; none elsewhere."""
        last = (list(getattr(model.base_model, "layers", None) or [None]))[-1]
        if not (hasattr(last, "self_attn") and hasattr(last, "mlp")):
            return []
        narrow = cls()
        return [
            last.self_attn.register_forward_pre_hook(narrow.listen, with_kwargs=True),
            last.mlp.register_forward_pre_hook(narrow.before),
            last.mlp.register_forward_hook(narrow.after),
        ]

    def listen(self, _module: Any, _given: Any, options: dict[str, Any]) -> None:
        self.where: Layout = options["forage_layout"]

    def before(self, _module: Any, given: tuple[Tensor]) -> tuple[Tensor]:
        return given if self.where.wanted is None else (given[0].index_select(1, self.where.wanted),)

    def after(self, _module: Any, _given: Any, output: Tensor) -> Tensor:
        if self.where.wanted is None:
            return output
        tokens = len(self.where.slot_of_token)
        whole = output.new_zeros(1, tokens, output.shape[-1])
        return whole.index_copy(1, self.where.wanted, output)


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
    where = forage_layout
    to_queries = (where.token_of_query, where.query_of_token, ())
    to_slots = (where.token_of_slot, where.slot_of_token, where.copies)
    queries = _unpack(query, to_queries, [(block.rows, block.queries) for block in where.blocks])
    keys, values = (
        _unpack(states, to_slots, [(block.rows, block.slots) for block in where.blocks]) for states in (key, value)
    )
    outputs = [
        _attend(q, k, v, block.skipped_R, scaling, sliding_window).flatten(0, 1)
        for q, k, v, block in zip(queries, keys, values, where.blocks, strict=True)
    ]
    packed = _Pack.apply(torch.cat(outputs).flatten(1), where.query_of_token)  # type: ignore[no-untyped-call]
    return packed.view(1, query.shape[2], query.shape[1], query.shape[3]), None


def _unpack(states: Tensor, where: tuple[Tensor, Tensor, Copies], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """[1,H,N,D] to one [R,S,H,D] a block, whose R and S `sizes` has."""
    _, heads, tokens, size = states.shape
    packed = states[0].transpose(0, 1).reshape(tokens, heads * size)
    flat = _Unpack.apply(packed, *where)  # type: ignore[no-untyped-call]
    parts = flat.split([rows * width for rows, width in sizes])
    return [part.view(rows, width, heads, size) for part, (rows, width) in zip(parts, sizes, strict=True)]


def _attend(
    q: Tensor, k: Tensor, v: Tensor, skipped_R: Tensor | None, scaling: float | None, window: int | None
) -> Tensor:
    """Causal attention of queries [R,Q,H,D] to keys [R,S,H,D]. Fewer queries than keys, or a window that is shorter
    than the rows, need a mask."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:  # its backward is 3x slower there than float32's
        return _attend(q.float(), k.float(), v.float(), skipped_R, scaling, window).to(q.dtype)
    mask = _mask(q.shape[1], k.shape[1], skipped_R, window, q.device)
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


def _mask(
    queries: int, slots: int, skipped_R: Tensor | None, window: int | None, device: torch.device
) -> Tensor | None:
    """Which keys a query sees, bool [R or 1, 1, Q, S]; None where it is every key up to its own."""
    if skipped_R is None and (window is None or window >= slots):
        return None
    query_RQ = torch.arange(queries, device=device) + (0 if skipped_R is None else skipped_R[:, None])
    distance_RQS = query_RQ.view(-1, queries, 1) - torch.arange(slots, device=device)
    seen_RQS = distance_RQS >= 0
    if window is not None:
        seen_RQS &= distance_RQS < window
    return seen_RQS[:, None]


class _Unpack(Function):
    """Packed [N,E] to slots [all slots,E]. Backward: each token has one slot, and shared prompts have more."""

    @staticmethod
    def forward(ctx: Any, states_NE: Tensor, token_of_slot: Tensor, slot_of_token: Tensor, copies: Copies) -> Tensor:
        ctx.slot_of_token, ctx.copies = slot_of_token, copies
        return states_NE.index_select(0, token_of_slot)

    @staticmethod
    def backward(ctx: Any, grad_SE: Tensor) -> tuple[Tensor, None, None, None]:
        grad_NE = grad_SE.index_select(0, ctx.slot_of_token)
        for prompt, slots_CP in ctx.copies:
            further = grad_SE.index_select(0, slots_CP.flatten()).view(*slots_CP.shape, -1)
            grad_NE[prompt] += further.sum(0)
        return grad_NE, None, None, None


class _Pack(Function):
    """Slots [all slots,E] to packed [N,E]. Backward: slots that nobody reads get no gradient."""

    @staticmethod
    def forward(ctx: Any, states_SE: Tensor, slot_of_token: Tensor) -> Tensor:
        ctx.slots, ctx.slot_of_token = len(states_SE), slot_of_token
        return states_SE.index_select(0, slot_of_token)

    @staticmethod
    def backward(ctx: Any, grad_NE: Tensor) -> tuple[Tensor, None]:
        grad_SE = grad_NE.new_zeros(ctx.slots, grad_NE.shape[1])
        return grad_SE.index_copy_(0, ctx.slot_of_token, grad_NE), None
