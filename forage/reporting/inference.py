"""What several runs say together: intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from forage.evaluation import wilson
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
