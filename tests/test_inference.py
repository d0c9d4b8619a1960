"""Intervals over seeds, and tests between arms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.intervals import wilson
from forage.reporting.inference import bootstrap, holm, mcnemar, over_seeds, t_quantile, welch_halfwidth

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


def test_mcnemar_by_hand():
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 1024)
    assert mcnemar(0, 0) == mcnemar(4, 4) == 1
    assert mcnemar(0, 2000) == pytest.approx(0)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_does_not_mind_the_order(a, b):
    assert mcnemar(a, b) == mcnemar(b, a)
    assert 0 < mcnemar(a, b) <= 1


def test_a_bootstrap_of_no_gains_is_certain_of_nothing():
    assert bootstrap([0.0] * 50) == (1.0, 0.0, 0.0)


def test_a_bootstrap_comes_near_the_normal_approximation():
    gains = [1.0] * 60 + [-1.0] * 40 + [0.0] * 300
    p, low, high = bootstrap(gains)
    spread = (100 / 400 - 0.05**2) ** 0.5 / 400**0.5
    assert (low, high) == pytest.approx((0.05 - 1.96 * spread, 0.05 + 1.96 * spread), abs=0.004)
    assert p == pytest.approx(0.045, abs=0.012)
    assert bootstrap(gains) == (p, low, high)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_only_ever_raises_and_keeps_the_order(ps):
    corrected = holm(ps)
    assert all(p <= c <= 1 for p, c in zip(ps, corrected, strict=True))
    by_size = [c for _, c in sorted(zip(ps, corrected, strict=True))]
    assert by_size == sorted(by_size)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_welch_by_hand():
    assert welch_halfwidth([0.5, 0.5], [0.7, 0.7]) == 0
    assert welch_halfwidth([0.1, 0.3], [0.2, 0.4]) == pytest.approx(4.303 * (0.02 / 2 * 2) ** 0.5)
