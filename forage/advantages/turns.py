"""Batches turn by turn: columns [B,K], where K counts turns from 0."""

from __future__ import annotations

from collections import defaultdict
from itertools import count

import torch
from torch import Tensor

from forage.batch import token_rewards
from forage.types import Batch


def taken(batch: Batch) -> Tensor:
    """Whether the row sampled anything in the turn, bool [B,K]."""
    return _by_turn(batch, _sampled(batch).long()) > 0


def rewards(batch: Batch) -> Tensor:
    """What each turn earned, float64 [B,K]."""
    return _by_turn(batch, token_rewards(batch).double())


def means(batch: Batch, values_BT: Tensor, where_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of a column over those tokens of each turn, float64 [B,K], and whether there are any, bool [B,K]."""
    count_BK = _by_turn(batch, where_BT.double())
    return _by_turn(batch, values_BT.double().where(where_BT, 0.0)) / count_BK.clamp(min=1), count_BK > 0


def on_tokens(batch: Batch, values_BK: Tensor) -> Tensor:
    """Each turn's value on all tokens of the turn [B,T]."""
    return values_BK.gather(1, batch.turn_BT)


def states(batch: Batch) -> Tensor:
    """The state that each turn starts from, as a number, int64 [B,K].

    Turns start from the same state where their rows are samples of one question, the turns have the same number (so
    that as many searches are left), and the policy was shown the same tokens so far, whatever it wrote itself.
    """
    inside_BT = torch.arange(batch.tokens_BT.shape[1]) < batch.lengths_B.cpu()[:, None]
    shown_BT = inside_BT & ~_sampled(batch).cpu()
    told_BTX = torch.stack([batch.tokens_BT, batch.turn_BT], 2).cpu()  # X: the token, and its turn
    numbers: defaultdict[tuple[int, int, bytes], int] = defaultdict(count().__next__)
    turns = _turns(batch)
    rows = [
        [numbers[group, k, told_TX[shown_T & (told_TX[:, 1] <= k)].numpy().tobytes()] for k in range(turns)]
        for group, shown_T, told_TX in zip(batch.group_B.tolist(), shown_BT, told_BTX, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.int64, device=batch.tokens_BT.device).view(len(rows), turns)


def _sampled(batch: Batch) -> Tensor:
    return batch.acted_BT if batch.sampled_BT is None else batch.sampled_BT


def _turns(batch: Batch) -> int:
    return int(batch.turn_BT.max()) + 1 if batch.turn_BT.numel() else 0


def _by_turn(batch: Batch, values_BT: Tensor) -> Tensor:
    """Sums of a column over the tokens of each turn."""
    return values_BT.new_zeros(len(values_BT), _turns(batch)).scatter_add(1, batch.turn_BT, values_BT)
