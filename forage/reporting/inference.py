"""What several runs say together: intervals over seeds, and tests of one against another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from forage.intervals import wilson
from forage.metrics import mean
from forage.reporting.figures import Estimate

_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # of 1, 2, ... degrees of freedom


def t_quantile(freedom: int) -> float:
    """The .975 quantile of Student's t; beyond ten degrees of freedom by its Cornish-Fisher expansion."""
    if freedom <= len(_T_975):
        return _T_975[freedom - 1]
    return 1.96 + 2.372 / freedom + 2.823 / freedom**2


def over_seeds(shares: Sequence[float], questions: int) -> Estimate:
    """Mean share of right answers over seeds, with its 95% interval for new seeds and new questions.

    Two uncertainties are added in quadrature, each on its own side of the mean (MOVER: Zou and Donner, Statistics in
    Medicine 27, 2008): Wilson's interval over the questions, which all seeds share, and the t interval over the seeds.
    Of one seed it is Wilson's interval. Of three seeds the t interval is wide (4.3 standard errors), as it should be.

    Args:
        shares: the share of each seed.
        questions: questions that each seed was asked, the same for all.
    """
    centre, spread = mean(shares), t_halfwidth(shares)
    low, high = wilson(centre * questions, questions)
    return Estimate(
        centre,
        max(0.0, centre - math.hypot(centre - low, spread)),
        min(1.0, centre + math.hypot(high - centre, spread)),
    )


def t_halfwidth(values: Sequence[float]) -> float:
    """Half the 95% t interval of a mean over independent values; 0 of a single one."""
    if len(values) < 2:
        return 0.0
    centre = mean(values)
    variance = sum((value - centre) ** 2 for value in values) / (len(values) - 1)
    return t_quantile(len(values) - 1) * math.sqrt(variance / len(values))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test (Q. McNemar, 1947): questions that only one of two runs got right are a coin
    toss each, where both are equally good."""
    tosses = only_a + only_b
    tail = sum(math.comb(tosses, i) for i in range(min(only_a, only_b) + 1))
    return min(1.0, float(2 * tail / 2**tosses))


def bootstrap(gains: Sequence[float], draws: int = 10_000) -> tuple[float, float, float]:
    """p, low and high of a mean gain, one value a question, by drawing questions anew (a paired bootstrap).

    p is two-sided: how often a mean drawn from the gains, moved to have mean 0, is as far from 0 as the gain found
    (B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, section 16.4). The interval is that of the
    .025 and .975 quantiles. The draws are the same on every call.
    """
    values, counts = np.unique(np.asarray(gains, dtype=float), return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(gains), counts / len(gains), size=draws) @ values / len(gains)
    found = float(np.mean(gains))
    as_far = int(np.sum(np.abs(drawn - found) >= abs(found) - 1e-12))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return (1 + as_far) / (1 + draws), float(low), float(high)


def welch_halfwidth(a: Sequence[float], b: Sequence[float]) -> float:
    """Half the 95% interval of a difference of means over independent values, by Welch's t (B. L. Welch, 1947)."""
    parts = [statistics.variance(values) / len(values) for values in (a, b)]
    total = sum(parts)
    if not total:
        return 0.0
    freedom = total**2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (a, b), strict=True))
    return t_quantile(max(1, math.floor(freedom))) * math.sqrt(total)


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for there being several, in their order (S. Holm, 1979)."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return corrected
