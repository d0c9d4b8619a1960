"""95% intervals of shares and means."""

from __future__ import annotations

import math
from collections.abc import Sequence


def wilson(successes: float, n: int, z: float = 1.96) -> list[float]:
    """95% interval of a share: Wilson's score interval (E. B. Wilson, 1927), which stays inside [0, 1]."""
    p, spread = successes / n, z * z / n
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return [max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))]


def normal_interval(values: Sequence[float], z: float = 1.96) -> list[float]:
    """95% interval of a mean by the normal approximation; the mean itself of a single value."""
    n, centre = len(values), math.fsum(values) / len(values)
    variance = sum((v - centre) ** 2 for v in values) / (n - 1) if n > 1 else 0.0
    half = z * math.sqrt(variance / n)
    return [max(0.0, centre - half), min(1.0, centre + half)]
