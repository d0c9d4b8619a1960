"""A batch to micro-batches: as many whole rows as a token budget holds, packed into one sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forage.batch import select
from forage.models.layout import LONG, Layout, layout
from forage.types import Batch


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows of a batch in one packed sequence of N tokens, of which M are followed by an acted one."""

    batch: Batch
    tokens_N: Tensor
    positions_N: Tensor
    where: Layout
    before_M: Tensor  # packed number of the token before each acted one
    labels_M: Tensor  # the acted tokens, in the order of batch.acted_BT

    def spread(self, values_M: Tensor) -> Tensor:
        """One number an acted token to [B,T], 0 elsewhere; differentiable."""
        acted_BT = self.batch.acted_BT
        return values_M.new_zeros(acted_BT.shape).masked_scatter(acted_BT, values_M)


def micro_batches(batch: Batch, budget: int, *, share_prompts: bool = True) -> Iterator[MicroBatch]:
    """Cut a batch into micro-batches of at most `budget` packed tokens (a longer row gets one of its own).

    With `share_prompts`, tokens that all rows of a group begin with before the first acted one are computed once.
    Rows without an acted token teach nothing, and are left out.
    """
    if not len(batch.lengths_B):
        return
    known = _Rows.of(batch, share_prompts)
    for rows in _fill(known, budget):
        yield _pack(select(batch, torch.tensor(rows, device=batch.tokens_BT.device)), known, rows)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the packing looks at, on the CPU."""

    length: list[int]  # 0 where nothing was acted
    group: list[int]
    prompt: list[int]  # leading tokens that all rows of the group have in common and nobody acted; 0 without sharing

    @classmethod
    def of(cls, batch: Batch, share: bool) -> _Rows:
        acted_BT, tokens_BT = batch.acted_BT.cpu(), batch.tokens_BT.cpu()
        length = (batch.lengths_B.cpu() * acted_BT.any(1)).tolist()
        group = batch.group_B.tolist()
        prompt = [0] * len(group)
        for name in set(group) if share else ():
            rows = [row for row, other in enumerate(group) if other == name and length[row]]
            common = _common_prompt(tokens_BT[rows], acted_BT[rows]) if rows else 0
            for row in rows:
                prompt[row] = common
        return cls(length, group, prompt)


def _common_prompt(tokens_RT: Tensor, acted_RT: Tensor) -> int:
    """Leading tokens in which the rows agree and of which none was acted."""
    differs_T = (tokens_RT != tokens_RT[:1]).any(0) | acted_RT.any(0)
    return int(differs_T.int().argmax())


def _fill(known: _Rows, budget: int) -> Iterator[list[int]]:
    """Row numbers of each micro-batch, in order, so that groups stay together."""
    chosen: list[int] = []
    used = 0
    for row, length in enumerate(known.length):
        if not length:
            continue
        joins = bool(chosen) and known.group[chosen[-1]] == known.group[row]
        cost = length - known.prompt[row] if joins else length
        if chosen and used + cost > budget:
            yield chosen
            chosen, used, cost = [], 0, length
        chosen.append(row)
        used += cost
    if chosen:
        yield chosen


def _pack(batch: Batch, known: _Rows, rows: list[int]) -> MicroBatch:
    """Lay the chosen rows one after another; `batch` holds just them."""
    numbers, shared = _number(known, rows)
    width, device = batch.tokens_BT.shape[1], batch.tokens_BT.device
    source_N = torch.empty(int(numbers[-1][-1]) + 1, dtype=torch.int64)  # where in the flat [B,T] a token comes from
    before_BT = torch.zeros(len(rows), width, dtype=torch.int64)
    acted_BT = batch.acted_BT.cpu()
    for i, row_N in enumerate(numbers):
        source_N[row_N] = torch.arange(len(row_N)) + i * width
        before_BT[i, 1 : len(row_N)] = row_N[:-1]
    where = layout(numbers, shared, long=LONG if device.type == "cpu" else math.inf)
    return MicroBatch(
        batch=batch,
        tokens_N=batch.tokens_BT.flatten()[source_N.to(device)],
        positions_N=(source_N % width).to(device),
        where=replace(where, wanted=torch.unique(before_BT[acted_BT])).to(device),
        before_M=before_BT.to(device)[batch.acted_BT],
        labels_M=batch.tokens_BT[batch.acted_BT],
    )


def _number(known: _Rows, rows: list[int]) -> tuple[list[Tensor], list[slice]]:
    """The packed token numbers of each row, and the slices with which several rows begin."""
    numbers: list[Tensor] = []
    shared: dict[int, slice] = {}
    size = 0
    for i, row in enumerate(rows):
        joins = i > 0 and known.group[rows[i - 1]] == known.group[row]
        prompt_N = numbers[-1][: known.prompt[row]] if joins else torch.arange(0)
        own = known.length[row] - len(prompt_N)
        numbers.append(torch.cat([prompt_N, torch.arange(size, size + own)]))
        if len(prompt_N):
            shared[int(prompt_N[0])] = slice(int(prompt_N[0]), int(prompt_N[-1]) + 1)
        size += own
    return numbers, list(shared.values())
