"""Estimators of the KL divergence from a reference, one token at a time.

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


ESTIMATORS: dict[str, KLEstimator] = {"k1": k1, "k2": k2, "k3": k3, "abs": absolute}
