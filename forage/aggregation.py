"""From a loss a token to one number: the weight of each token in the sum.

An aggregation is `(acted_BT, tokens, rows) -> weights_BT` (float64); the loss is `(loss_BT * weights_BT).sum()`.
`tokens` and `rows` count the whole optimizer step, so that neither micro-batches nor processes change the gradient.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

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


AGGREGATIONS: dict[str, Aggregation] = {
    "token_mean": token_mean,
    "sequence_mean": sequence_mean,
    "sequence_sum": sequence_sum,
}
