"""Where each token of rows that are packed into one sequence stands when the rows are attended together.

    packed   [prompt | rest of row 0 | rest of row 1 | prompt' | ...]                                        N tokens
    block    [prompt | rest of row 0 ........]                                                         R rows, S slots
             [prompt | rest of row 1 | filler]

Where the shared prompt is most of a row, the row's prompt is looked at, but does not look once more: such rows form
blocks whose queries are the rest alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

FILL = 0.8  # a row joins a block if it fills at least this share of its slots
LONG = 0.45  # share of a row from which on leaving out its prompt's queries beats the plain causal kernel, on a CPU

Copies = tuple[tuple[slice, Tensor], ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that are attended together. `slots` and `queries` of all blocks of a layout are numbered through."""

    rows: int
    slots: int  # keys per row
    queries: int  # per row, as many as keys or fewer
    skipped_R: Tensor | None = None  # int64: keys of each row before its first query, where there are fewer


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each token of a packed sequence stands in the blocks."""

    blocks: tuple[Block, ...]
    token_of_slot: Tensor  # int64 [all slots]: the packed token in it; filler repeats some token
    slot_of_token: Tensor  # int64 [N]: a slot that holds the token
    token_of_query: Tensor  # int64 [all queries]: the same for queries
    query_of_token: Tensor  # int64 [N]: the query whose attention output is the token's
    copies: Copies  # shared prompts: their packed tokens, int64 [copies, P] of further slots
    wanted: Tensor | None = None  # int64, no number twice: tokens whose final hidden state is read; None: all

    def to(self, device: torch.device) -> Layout:
        """The same layout with its indices on `device`."""
        blocks = (
            replace(block, skipped_R=None if block.skipped_R is None else block.skipped_R.to(device))
            for block in self.blocks
        )
        copies = tuple((prompt, slots.to(device)) for prompt, slots in self.copies)
        return Layout(
            tuple(blocks),
            self.token_of_slot.to(device),
            self.slot_of_token.to(device),
            self.token_of_query.to(device),
            self.query_of_token.to(device),
            copies,
            None if self.wanted is None else self.wanted.to(device),
        )

    @property
    def padding(self) -> float:
        """Share of the slots that is filler or a further copy of a shared prompt."""
        return 1 - len(self.slot_of_token) / max(len(self.token_of_slot), 1)


def layout(rows: Sequence[Tensor], shared: Sequence[slice] = (), fill: float = FILL, long: float = math.inf) -> Layout:
    """Arrange rows in blocks.

    Args:
        rows: packed token numbers of each row, in order (int64, on the CPU). Rows may share leading tokens.
        shared: the packed slices that more than one row begins with.
        fill: smallest share of a block's width that a row in it may have.
        long: share of a row from which on its shared prompt is left out of the queries (but in the first such row).
    """
    skipped = _skipped(rows, shared, long)
    members = _members(rows, skipped, fill)
    order = [row for block in members for row in block]
    blocks = tuple(_block(block, rows, skipped) for block in members)
    token_of_slot, start_of_row = _numbered([rows[row] for row in order], blocks, [block.slots for block in blocks])
    token_of_query, first_query = _numbered(
        [rows[row][skipped[row] :] for row in order], blocks, [block.queries for block in blocks]
    )
    slot_of_token = torch.empty(int(token_of_slot.max()) + 1, dtype=torch.int64)
    query_of_token = torch.empty_like(slot_of_token)
    for row, start, query in zip(order, start_of_row, first_query, strict=True):
        tokens, own = rows[row], rows[row][skipped[row] :]
        slot_of_token[tokens] = torch.arange(start, start + len(tokens))
        query_of_token[own] = torch.arange(query, query + len(own))
    copies = []
    for prompt in shared:
        firsts = [start for row, start in zip(order, start_of_row, strict=True) if int(rows[row][0]) == prompt.start]
        further = [first for first in firsts if first != int(slot_of_token[prompt.start])]
        offsets = torch.arange(prompt.stop - prompt.start)
        copies.append((prompt, torch.tensor(further)[:, None] + offsets))
    return Layout(blocks, token_of_slot, slot_of_token, token_of_query, query_of_token, tuple(copies))


def _skipped(rows: Sequence[Tensor], shared: Sequence[slice], long: float) -> list[int]:
    """Leading tokens of each row that need no query, because another row has them."""
    prompts = {prompt.start: prompt.stop - prompt.start for prompt in shared}
    seen: set[int] = set()
    skipped = []
    for tokens in rows:
        first = int(tokens[0])
        size = prompts.get(first, 0)
        skipped.append(size if first in seen and size >= long * len(tokens) else 0)
        seen.add(first)
    return skipped


def _members(rows: Sequence[Tensor], skipped: Sequence[int], fill: float) -> list[list[int]]:
    """The rows of each block, longest first; rows with all their queries and others do not mix."""

    members: list[list[int]] = []
    slots = queries = 0  # of the last block
    for row in sorted(range(len(rows)), key=lambda row: (bool(skipped[row]), -len(rows[row]))):
        size, own = len(rows[row]), len(rows[row]) - skipped[row]
        like = bool(members) and bool(skipped[row]) == bool(skipped[members[-1][0]])
        if like and size >= fill * slots and min(own, queries) >= fill * max(own, queries):
            members[-1].append(row)
            queries = max(queries, own)
        else:
            members.append([row])
            slots, queries = size, own
    return members


def _block(members: Sequence[int], rows: Sequence[Tensor], skipped: Sequence[int]) -> Block:
    slots = max(len(rows[row]) for row in members)
    if not skipped[members[0]]:
        return Block(len(members), slots, slots)
    skipped_R = torch.tensor([skipped[row] for row in members])
    return Block(len(members), slots, max(len(rows[row]) - skipped[row] for row in members), skipped_R)


def _numbered(parts: Sequence[Tensor], blocks: Sequence[Block], widths: Sequence[int]) -> tuple[Tensor, list[int]]:
    """The token in each place of all blocks, whose rows are `widths` wide, and the place each part begins at."""
    width_of_part = [width for block, width in zip(blocks, widths, strict=True) for _ in range(block.rows)]
    places = [_widen(part, width) for part, width in zip(parts, width_of_part, strict=True)]
    return torch.cat(places), torch.tensor([0, *width_of_part]).cumsum(0)[:-1].tolist()


def _widen(tokens: Tensor, width: int) -> Tensor:
    """Filler repeats the row's last token: it stands behind every real one, so causal attention never looks at it."""
    return torch.cat([tokens, tokens[-1:].expand(width - len(tokens))])
