"""Estimators of the KL divergence from a reference, one token at a time; and what a KL is weighed with.

With d = log p - log p_ref of a sampled token (Schulman, "Approximating KL divergence", 2020):

    k1   d                    unbiased, can be negative
    k2   d^2 / 2              biased, always positive, low variance
    k3   exp(-d) + d - 1      unbiased, always positive; clamped to [-10, 10], -d to [-20, 20] before
    abs  |d|
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

KLEstimator = Callable[[Tensor, Tensor], Tensor]


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """d, of any shape."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """d^2 / 2, of any shape."""
    return (logprobs - ref_logprobs).square() / 2


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(-d) + d - 1, of any shape. The inner clamp keeps exp, and so the gradient, finite in float32."""
    minus_d = (ref_logprobs - logprobs).clamp(-20, 20)
    return (minus_d.exp() - minus_d - 1).clamp(-10, 10)


def absolute(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """|d|, of any shape."""
    return (logprobs - ref_logprobs).abs()


def mean_of_rows(kl_BT: Tensor, acted_BT: Tensor) -> float:
    """The mean over rows of the mean over a row's acted tokens; a row of which nothing was acted counts as 0."""
    means_B = (kl_BT.double() * acted_BT).sum(1) / acted_BT.sum(1).clamp(min=1)
    return float(means_B.sum()) / max(len(means_B), 1)


class Coefficient:
    """The weight of a KL. With a target it follows it (Ziegler et al., arXiv 1909.08593, section 2.2):

        coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * rows / horizon

    Never below 0: where a batch holds more than five horizons the formula alone would change the sign.

    Args:
        value: what it begins with.
        target: the KL to keep, as `mean_of_rows` measures it; 0 leaves the coefficient as it is.
        horizon: rows after which an error of 20% or more has changed it by about 20%.
    """

    def __init__(self, value: float, target: float = 0.0, horizon: int = 10_000) -> None:
        self.value = value
        self._target, self._horizon = target, horizon

    def follow(self, kl: float, rows: int) -> None:
        """Take in the mean KL of a batch of so many rows."""
        if self._target:
            error = min(max(kl / self._target - 1, -0.2), 0.2)
            self.value = max(self.value * (1 + error * rows / self._horizon), 0.0)


ESTIMATORS: dict[str, KLEstimator] = {"k1": k1, "k2": k2, "k3": k3, "abs": absolute}
