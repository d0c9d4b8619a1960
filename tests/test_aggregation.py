import pytest
import torch

from forage.aggregation import AGGREGATIONS, aggregation
from forage.errors import ConfigError

ACTED = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()


@pytest.mark.parametrize(
    ("name", "divisor", "weights"),
    [
        ("token_mean", 0, [1 / 4, 1 / 4]),
        ("sequence_mean", 0, [1 / 9, 1 / 3]),
        ("sequence_sum", 0, [1 / 3, 1 / 3]),
        ("constant", 8, [1 / 24, 1 / 24]),
    ],
)
def test_what_a_token_weighs_in_a_long_row_and_in_a_short_one(name, divisor, weights):
    weights_BT = aggregation(name, divisor)(ACTED, 4, 3)
    assert [float(weights_BT[0, 0]), float(weights_BT[1, 0])] == pytest.approx(weights)
    assert (weights_BT[~ACTED] == 0).all()


def test_only_the_constant_one_has_a_constant():
    for name, divisor in [("constant", 0.0), ("constant", -1.0), *((name, 8.0) for name in AGGREGATIONS)]:
        with pytest.raises(ConfigError, match='goes with "constant"'):
            aggregation(name, divisor)
