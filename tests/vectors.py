"""What the adapters of tests/test_reference.py share: numbers of a vector file as tensors, and how close is equal."""

import torch

from forage.types import Batch


def numbers(values):
    """Nested lists of numbers; "NaN" and "Infinity" are strings there."""
    if isinstance(values, list):
        return [numbers(value) for value in values]
    return float(values)


def tensor(values, dtype=torch.float64):
    return torch.tensor(numbers(values), dtype=dtype)


def close(ours, theirs, case, tolerance=1e-7):
    """Equal up to the tolerance; in float32 up to three times what float32 alone is off by."""
    if not isinstance(theirs, torch.Tensor):
        theirs = tensor(theirs)
    tolerance = max(tolerance, 3 * case.get("float32_error", 0.0) if case["inputs"].get("dtype") == "float32" else 0.0)
    torch.testing.assert_close(torch.as_tensor(ours, dtype=torch.float64), theirs, rtol=tolerance, atol=tolerance)


def rows_of(acted_BT, **columns):
    """A batch of rows that are a group each, with these columns."""
    empty_BT = torch.zeros(acted_BT.shape, dtype=torch.int64)
    row_B = torch.arange(len(acted_BT))
    return Batch(
        tokens_BT=empty_BT,
        turn_BT=empty_BT,
        version_BT=empty_BT,
        acted_BT=acted_BT,
        lengths_B=acted_BT.sum(1),
        rewards_B=row_B.float(),
        rewards_BT=torch.zeros(acted_BT.shape),
        group_B=row_B,
        **columns,
    )
