"""Intervals over seeds, and tests between arms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.evaluation import wilson
from forage.reporting.inference import over_seeds, t_quantile

SHARES = st.lists(st.integers(0, 50).map(lambda right: right / 50), min_size=1, max_size=6)


def test_the_interval_of_one_seed_is_wilsons():
    assert over_seeds([0.9], 600)[1:] == pytest.approx(wilson(540, 600))


@given(SHARES)
def test_an_interval_holds_its_mean_and_is_no_narrower_than_that_of_the_questions(shares):
    value, low, high = over_seeds(shares, 50)
    below, above = wilson(value * 50, 50)
    assert 0 <= low <= below + 1e-9 <= value + 2e-9
    assert value - 1e-9 <= above - 1e-9 <= high <= 1


def test_seeds_that_differ_widen_it():
    same, apart = over_seeds([0.8, 0.8, 0.8], 600), over_seeds([0.7, 0.8, 0.9], 600)
    assert apart.low < same.low < same.high < apart.high
    assert apart.value - apart.low == pytest.approx((4.303**2 * 0.01 / 3 + (0.8 - same.low) ** 2) ** 0.5)


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.706), (2, 4.303), (10, 2.228), (15, 2.131), (30, 2.042), (1000, 1.962)]
)
def test_quantiles_of_t(freedom, value):
    assert t_quantile(freedom) == pytest.approx(value, abs=2e-3)
