"""A batch to micro-batches: as many whole rows as a token budget holds, packed into one sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from forage.batch import select
from forage.models.packed import Layout, layout
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
    cpu = _Rows.of(batch)
    for rows in _fill(cpu, budget, share_prompts):
        yield _pack(select(batch, torch.tensor(rows, device=batch.tokens_BT.device)), cpu, rows, share_prompts)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the packing looks at, on the CPU."""

    length: list[int]
    group: list[int]
    prompt: list[int]  # leading tokens that all rows of the group have in common and nobody acted

    @classmethod
    def of(cls, batch: Batch) -> _Rows:
        acted_BT, tokens_BT = batch.acted_BT.cpu(), batch.tokens_BT.cpu()
        first_B = acted_BT.int().argmax(1).tolist()
        group = batch.group_B.tolist()
        length = [n if row.any() else 0 for n, row in zip(batch.lengths_B.tolist(), acted_BT, strict=True)]
        common: dict[int, int] = {}
        leader: dict[int, int] = {}
        for row, name in enumerate(group):
            if not length[row]:
                continue
            lead = leader.setdefault(name, row)
            differs = (tokens_BT[row] != tokens_BT[lead])[: first_B[row]]
            same = int(differs.int().argmax()) if differs.any() else first_B[row]
            common[name] = min(common.get(name, same), same)
        return cls(length, group, [common.get(name, 0) for name in group])


def _fill(rows: _Rows, budget: int, share: bool) -> Iterator[list[int]]:
    """Row numbers of each micro-batch, in order, so that groups stay together."""
    chosen: list[int] = []
    used = 0
    for row, length in enumerate(rows.length):
        if not length:
            continue
        shares = share and bool(chosen) and rows.group[chosen[-1]] == rows.group[row]
        cost = length - (rows.prompt[row] if shares else 0)
        if chosen and used + cost > budget:
            yield chosen
            chosen, used, cost = [], 0, length
        chosen.append(row)
        used += cost
    if chosen:
        yield chosen


def _pack(batch: Batch, cpu: _Rows, rows: list[int], share: bool) -> MicroBatch:
    """Lay the chosen rows one after another; `batch` holds just them."""
    numbers: list[Tensor] = []
    shared: list[slice] = []
    sources: list[Tensor] = []  # flat [B,T] index of each packed token
    size = 0
    width = batch.tokens_BT.shape[1]
    for i, row in enumerate(rows):
        length, prompt = cpu.length[row], cpu.prompt[row]
        joins = share and prompt > 0 and i > 0 and cpu.group[rows[i - 1]] == cpu.group[row]
        if joins:
            first = int(numbers[-1][0])
            if not shared or shared[-1].start != first:
                shared.append(slice(first, first + prompt))
        kept = prompt if joins else 0
        own = torch.arange(size, size + length - kept)
        numbers.append(torch.cat([numbers[-1][:kept], own]) if joins else own)
        sources.append(torch.arange(i * width + kept, i * width + length))
        size += length - kept
    source_N = torch.cat(sources)
    before_BT = torch.zeros(len(rows), width, dtype=torch.int64)
    for i, tokens in enumerate(numbers):
        before_BT[i, 1 : len(tokens)] = tokens[:-1]
    device = batch.tokens_BT.device
    return MicroBatch(
        batch=batch,
        tokens_N=batch.tokens_BT.flatten()[source_N.to(device)],
        positions_N=(source_N % width).to(device),
        where=layout(numbers, shared).to(device),
        before_M=before_BT.to(device)[batch.acted_BT],
        labels_M=batch.tokens_BT[batch.acted_BT],
    )
