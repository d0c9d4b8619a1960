"""Rewarded groups to tensors, and tensors to parts of themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from forage.types import Batch, Group, Scores, StopReason, Trajectory


def collate(
    groups: Sequence[Group],
    *,
    drop_equal: bool = False,
    everything: bool = False,
    judge_shown: bool = False,
    device: torch.device | str = "cpu",
) -> Batch:
    """Groups to a padded batch.

    With `drop_equal`, groups whose rewards are all equal get no rows, but keep their number in `group_B` and their
    share in `acted_tokens`, so that leaving them out saves compute and changes no gradient.

    With `everything`, all tokens from the first sampled one on count as acted (the mask is off); `sampled_BT` keeps
    which of them were sampled, and the sampled logprobs of the others are 0 until the learner fills them in.

    With `judge_shown`, a critic judges the same tokens (`judged_BT`); what the policy learns stays as it is.

    Raises:
        ValueError: columns of a trajectory differ in length, a first token is acted (nothing predicts it), an
            episode has no end or ended by a failed search, or groups and scores differ in number.
    """
    for group in groups:
        _check_group(group)
    learned: Callable[[Trajectory], list[int]] = _from_first_acted if everything else lambda row: row.acted
    kept = [(g, group) for g, group in enumerate(groups) if group.has_signal or not drop_equal]
    rows = [trajectory for _, group in kept for trajectory in group.trajectories]
    scores = [score for _, group in kept for score in group.scores]
    batch = Batch(
        tokens_BT=_pad([row.tokens for row in rows], torch.int64),
        acted_BT=_pad([learned(row) for row in rows], torch.bool),
        turn_BT=_pad([row.turn for row in rows], torch.int64),
        version_BT=_pad([row.versions for row in rows], torch.int64),
        sampled_logprobs_BT=_pad([row.logprobs for row in rows], torch.float32),
        lengths_B=torch.tensor([len(row.tokens) for row in rows], dtype=torch.int64),
        rewards_B=torch.tensor([score.total for score in scores], dtype=torch.float32),
        rewards_BT=_pad([_placed(row, score) for row, score in zip(rows, scores, strict=True)], torch.float32),
        group_B=torch.tensor([g for g, group in kept for _ in group.trajectories], dtype=torch.int64),
        baselines_B=_baselines([group for _, group in kept]),
        tree_B=_trees([(g, row.tree) for g, group in kept for row in group.trajectories]),
        gains_BT=_gains(rows),
        judged_BT=_pad([_from_first_acted(row) for row in rows], torch.bool) if judge_shown else None,
        sampled_BT=_pad([row.acted for row in rows], torch.bool) if everything else None,
        tokens_G=torch.tensor([sum(sum(learned(row)) for row in group.trajectories) for group in groups]),
        rows_G=torch.tensor([len(group.trajectories) for group in groups]),
    )
    batch.acted_tokens = int(_present(batch.tokens_G).sum())
    return to_device(batch, device)


def token_rewards(batch: Batch) -> Tensor:
    """What each token earned [B,T], 0 where observed: its reward less its penalty."""
    if batch.penalty_BT is None:
        return batch.rewards_BT * batch.acted_BT
    return (batch.rewards_BT - batch.penalty_BT) * batch.acted_BT


def row_rewards(batch: Batch) -> Tensor:
    """What each row earned [B]: its reward less its tokens' penalties."""
    if batch.penalty_BT is None:
        return batch.rewards_B
    return batch.rewards_B - (batch.penalty_BT * batch.acted_BT).sum(1)


def with_advantages(batch: Batch, advantages_BT: Tensor) -> Batch:
    """The batch with these advantages [B,T] (or [B,1]) on its acted tokens, 0 elsewhere, in the rewards' dtype."""
    placed_BT = advantages_BT.expand(batch.acted_BT.shape).masked_fill(~batch.acted_BT, 0)
    return replace(batch, advantages_BT=placed_BT.to(batch.rewards_BT.dtype))


def select(batch: Batch, rows_R: Tensor) -> Batch:
    """The rows with these numbers, trimmed to the longest of them; counts of the step stay as they are."""
    lengths_R = batch.lengths_B[rows_R]
    width = int(lengths_R.max()) if len(lengths_R) else 0

    def part(name: str, value: Any) -> Any:
        if name.endswith("_BT") and value is not None:
            return value[rows_R, :width]
        return value[rows_R] if name.endswith("_B") and value is not None else value

    columns = {field.name: part(field.name, getattr(batch, field.name)) for field in fields(batch)}
    columns["extra"] = {name: part(name, value) for name, value in batch.extra.items()}
    return Batch(**columns)


def chosen(batch: Batch) -> Batch:
    """The rows that have an advantage, as if there were no others: a loss is a mean over their tokens, and the others
    cost no forward. Groups are numbered anew, so that a minibatch of questions counts those with such rows."""
    part = select(batch, _present(batch.advantages_BT).ne(0).any(1).nonzero().flatten())
    group_B = torch.unique(part.group_B, return_inverse=True)[1]
    return replace(part, group_B=group_B, tokens_G=None, rows_G=None, acted_tokens=int(part.acted_BT.sum()))


def minibatches(batch: Batch, questions: int) -> list[Batch]:
    """The batch in parts of `questions` groups, in order; 0 means one part.

    Groups that were left out are counted as if they were there: a part's `acted_tokens` includes theirs, and a part
    of which every group was left out has no rows.
    """
    tokens_G, rows_G = counts(batch)
    size = questions or max(len(tokens_G), 1)
    parts = []
    for first in range(0, len(tokens_G), size):
        inside_B = (batch.group_B >= first) & (batch.group_B < first + size)
        part = select(batch, inside_B.nonzero().flatten())
        chosen = slice(first, first + size)
        part = replace(part, tokens_G=tokens_G[chosen], rows_G=rows_G[chosen], group_B=part.group_B - first)
        parts.append(replace(part, acted_tokens=int(tokens_G[chosen].sum())))
    return parts


def counts(batch: Batch) -> tuple[Tensor, Tensor]:
    """Acted tokens and rows of each group of the step (both int64 [G]), counted from the rows where not recorded."""
    if batch.tokens_G is not None and batch.rows_G is not None:
        return batch.tokens_G, batch.rows_G
    groups = int(batch.group_B.max()) + 1 if len(batch.group_B) else 0
    rows_G = torch.bincount(batch.group_B, minlength=groups)
    tokens_G = torch.zeros_like(rows_G).index_add_(0, batch.group_B, batch.acted_BT.sum(1))
    return tokens_G, rows_G


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The same batch with its rows on `device` (the counts of groups stay on the CPU)."""

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    names = [field.name for field in fields(batch) if field.name.endswith(("_B", "_BT"))]
    columns = {name: moved(getattr(batch, name)) for name in names}
    return replace(batch, **columns, extra={name: moved(value) for name, value in batch.extra.items()})


def _check_group(group: Group) -> None:
    if len(group.trajectories) != len(group.scores):
        raise ValueError(f"{len(group.trajectories)} trajectories with {len(group.scores)} scores")
    for trajectory in group.trajectories:
        _check_row(trajectory)


def _check_row(row: Trajectory) -> None:
    where = f"{row.group}, sample {row.sample}"
    lengths = {len(column) for column in (row.tokens, row.acted, row.logprobs, row.versions, row.turn)}
    if len(lengths) != 1:
        raise ValueError(f"{where}: columns of different lengths {sorted(lengths)}")
    if row.stop is None or row.stop is StopReason.RETRIEVER_ERROR:
        raise ValueError(f"{where}: an episode that ended as {row.stop} can't be learned from")
    if row.acted and row.acted[0]:
        raise ValueError(f"{where}: the first token is acted, but nothing precedes it that could predict it")


def _from_first_acted(row: Trajectory) -> list[int]:
    first = row.acted.index(1) if 1 in row.acted else len(row.acted)
    return [int(t >= first) for t in range(len(row.acted))]


def _placed(row: Trajectory, score: Scores) -> list[float]:
    """The row's reward on its tokens: each turn's share at the turn's last acted token, the rest at the row's last."""
    rewards = [0.0] * len(row.tokens)
    last = {turn: t for t, (turn, acted) in enumerate(zip(row.turn, row.acted, strict=True)) if acted}
    if missing := score.turns.keys() - last.keys():
        raise ValueError(f"{row.group}, sample {row.sample}: a reward for turn {min(missing)}, which sampled nothing")
    for turn, reward in score.turns.items():
        rewards[last[turn]] += reward
    if last:
        rewards[max(last.values())] += score.total - sum(score.turns.values())
    return rewards


def _baselines(groups: Sequence[Group]) -> Tensor | None:
    """The greedy rewards, row by row; None where not every group has one."""
    rewards = [group.baseline for group in groups for _ in group.trajectories]
    known = [reward for reward in rewards if reward is not None]
    return torch.tensor(known, dtype=torch.float32) if rewards and len(known) == len(rewards) else None


def _trees(pairs: Sequence[tuple[int, int | None]]) -> Tensor | None:
    """A number for each pair of group and tree, row by row; None where a row was sampled without trees."""
    if any(tree is None for _, tree in pairs):
        return None
    numbers = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    return torch.tensor([numbers[pair] for pair in pairs], dtype=torch.int64)


def _gains(rows: Sequence[Trajectory]) -> Tensor | None:
    """What each search gained, on the tokens that asked for it (those of its turn that are no thought); None where no
    search was measured."""
    if all(turn.gain is None for row in rows for turn in row.turns):
        return None
    return _pad([_gained(row) for row in rows], torch.float32, math.nan)


def _gained(row: Trajectory) -> list[float]:
    gains = [math.nan] * len(row.tokens)
    for number, turn in enumerate(row.turns):
        if turn.gain is not None:
            asked = [t for t, (at, acted) in enumerate(zip(row.turn, row.acted, strict=True)) if at == number and acted]
            for t in asked[turn.thought_tokens or 0 :]:
                gains[t] = turn.gain
    return gains


def _pad(rows: Sequence[Sequence[float]], dtype: torch.dtype, fill: float = 0) -> Tensor:
    """Rows to one [B,T] tensor, `fill` behind their ends (`version` too: such tokens are never read)."""
    padded = torch.full((len(rows), max(map(len, rows), default=0)), fill, dtype=dtype)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = torch.tensor(values, dtype=dtype)
    return padded


def _present(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
