"""What is earned over time, and whitening: for estimators that look at tokens one by one. All in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from forage.interfaces import Reduce


def returns(rewards_BT: Tensor, steps_BT: Tensor, gamma: float) -> Tensor:
    """What is earned from each step on [B,T], each step later worth `gamma` times less; 0 where `steps_BT` is not."""
    return generalised(rewards_BT, torch.zeros_like(rewards_BT), steps_BT, gamma, 1.0)


def generalised(rewards_BT: Tensor, values_BT: Tensor, steps_BT: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantages [B,T], unwhitened (arXiv 1506.02438, equation 16); 0 where `steps_BT` is not.

    With d(t) = r(t) + gamma v(t+1) - v(t), the sum of (gamma lam)^k d(t+k), where t+1 is the row's next step and the
    value behind the last one is 0. What lies between two steps has no reward, no value and no discount.
    """
    rewards_BT, values_BT = rewards_BT.double(), values_BT.double()
    advantages_BT = torch.zeros_like(rewards_BT)
    later_B, value_B = advantages_BT.new_zeros(len(rewards_BT)), advantages_BT.new_zeros(len(rewards_BT))
    for t in reversed(range(rewards_BT.shape[1])):
        now_B = rewards_BT[:, t] + gamma * value_B - values_BT[:, t] + gamma * lam * later_B
        later_B = torch.where(steps_BT[:, t], now_B, later_B)
        value_B = torch.where(steps_BT[:, t], values_BT[:, t], value_B)
        advantages_BT[:, t] = later_B
    return advantages_BT.masked_fill(~steps_BT, 0)


def whiten(values_BT: Tensor, counted_BT: Tensor, reduce: Reduce) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-8), over the counted entries of all processes [B,T]; 0 elsewhere.

    The variance is the unbiased one. Equal numbers, or fewer than two, give exactly 0 (peers refuse fewer than two).
    """
    values_N = values_BT[counted_BT].double()
    count, total = reduce(torch.stack([values_N.new_tensor(float(len(values_N))), values_N.sum()]))
    # As in `compare.centred`: the second mean is that of the first one's rounding.
    rough_N = values_N - total / count.clamp(min=1)
    off, squares = reduce(torch.stack([rough_N.sum(), rough_N.square().sum()]))
    variance = (squares - off.square() / count.clamp(min=1)) / (count - 1).clamp(min=1)
    whitened_N = (rough_N - off / count.clamp(min=1)) / (variance.clamp(min=0) + 1e-8).sqrt()
    return torch.zeros_like(values_BT, dtype=torch.float64).masked_scatter(counted_BT, whitened_N)
