"""Samples of a question beside one another. All in float64, since a small spread is a difference of large numbers.

A group's numbers that are all equal, or a group of one, give exactly 0: there is nothing to compare. Peers divide a
rounding error there, or keep what a lone sample earned.
"""

from __future__ import annotations

import torch
from torch import Tensor


def centred(values_B: Tensor, group_B: Tensor) -> Tensor:
    """Each row less the mean of its group; any shape that begins with B."""
    # The first mean may be off by a rounding. What it leaves of equal numbers is a few units of their last place, and
    # the mean of those is exact: so nothing is left the second time.
    rough_B = values_B.double() - _means(values_B.double(), group_B)
    return rough_B - _means(rough_B, group_B)


def normalised(values_B: Tensor, group_B: Tensor, epsilon: float) -> Tensor:
    """Each row less the mean of its group, divided by (the group's unbiased standard deviation + epsilon)."""
    centred_B = centred(values_B, group_B)
    variance_B = _means(centred_B.square(), group_B) * _bessel(centred_B, group_B)
    return centred_B / (variance_B.sqrt() + epsilon)


def less_others(values_B: Tensor, group_B: Tensor) -> Tensor:
    """Each row less the mean of the other rows of its group; any shape that begins with B."""
    centred_B = centred(values_B, group_B)
    return centred_B * _bessel(centred_B, group_B)


def _means(values_B: Tensor, group_B: Tensor) -> Tensor:
    """The mean of its group, for each row."""
    _, index_B, size_G = torch.unique(group_B, return_inverse=True, return_counts=True)
    sums_G = values_B.new_zeros(len(size_G), *values_B.shape[1:]).index_add_(0, index_B, values_B)
    return sums_G[index_B] / _column(size_G[index_B], values_B)


def _bessel(values_B: Tensor, group_B: Tensor) -> Tensor:
    """n / (n - 1) of its group, for each row, as a column beside the values; 1 in a group of one."""
    _, index_B, size_G = torch.unique(group_B, return_inverse=True, return_counts=True)
    return _column((size_G / (size_G - 1).clamp(min=1)).double()[index_B], values_B)


def _column(numbers_B: Tensor, values_B: Tensor) -> Tensor:
    return numbers_B.view(-1, *(1,) * (values_B.ndim - 1))
