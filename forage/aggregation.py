"""From a loss a token to one number: the weight of each token in the sum.

An aggregation is `(acted_BT, tokens, rows) -> weights_BT` (float64); the loss is `(loss_BT * weights_BT).sum()`.
`tokens` and `rows` count the whole optimizer step, so that neither micro-batches nor processes change the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from forage.errors import ConfigError

Aggregation = Callable[[Tensor, int, int], Tensor]


def token_mean(acted_BT: Tensor, tokens: int, rows: int) -> Tensor:  # noqa: ARG001 (one signature for all)
    """Every acted token weighs the same (DAPO, arXiv 2503.14476, equation 8)."""
    return acted_BT.double() / max(tokens, 1)


def sequence_mean(acted_BT: Tensor, tokens: int, rows: int) -> Tensor:  # noqa: ARG001
    """Every row weighs the same: mean over rows of the mean over a row's tokens (GRPO, arXiv 2402.03300)."""
    return acted_BT.double() / acted_BT.sum(1, keepdim=True).clamp(min=1) / max(rows, 1)


def sequence_sum(acted_BT: Tensor, tokens: int, rows: int) -> Tensor:  # noqa: ARG001
    """Mean over rows of the sum over a row's tokens (Dr. GRPO, arXiv 2503.20783, without its constant)."""
    return acted_BT.double() / max(rows, 1)


def constant(acted_BT: Tensor, tokens: int, rows: int, divisor: float) -> Tensor:  # noqa: ARG001
    """Mean over rows of the sum over a row's tokens, divided by a constant such as the longest episode's tokens.

    That is Dr. GRPO as published (arXiv 2503.20783): `sequence_sum` with a loss of the usual size.
    """
    return acted_BT.double() / (max(rows, 1) * divisor)


AGGREGATIONS: dict[str, Aggregation] = {
    "token_mean": token_mean,
    "sequence_mean": sequence_mean,
    "sequence_sum": sequence_sum,
}


def aggregation(name: str, divisor: float = 0.0) -> Aggregation:
    """The aggregation of that name; "constant" takes what it divides by, and no other does.

    Raises:
        ConfigError: "constant" without a divisor above 0, or a divisor with another name.
    """
    if not (divisor > 0 if name == "constant" else divisor == 0):
        raise ConfigError(
            f"learner.aggregation_constant = {divisor} with learner.aggregation = {name!r}: "
            'a constant above 0 goes with "constant", and with no other'
        )
    return partial(constant, divisor=divisor) if name == "constant" else AGGREGATIONS[name]
