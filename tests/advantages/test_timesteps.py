import torch
from hypothesis import given
from hypothesis import strategies as st

from forage.advantages.timesteps import generalised, returns, whiten

NUMBERS = st.lists(st.floats(-100, 100), min_size=0, max_size=9)


def alone(total):
    return total


def test_an_observed_token_is_no_step():
    rewards_BT = torch.tensor([[0.0, 2.0, 9.0, 4.0, 9.0]])
    steps_BT = torch.tensor([[True, True, False, True, False]])
    assert returns(rewards_BT, steps_BT, 0.5).tolist() == [[2.0, 4.0, 0.0, 4.0, 0.0]]


def test_generalised_advantages_by_hand():
    rewards_BT, values_BT = torch.tensor([[0.0, 9.0, 1.0]]), torch.tensor([[0.5, 9.0, 0.25]])
    steps_BT = torch.tensor([[True, False, True]])
    last = 1 - 0.25
    first = 0 + 0.5 * 0.25 - 0.5 + 0.5 * 0.5 * last
    assert generalised(rewards_BT, values_BT, steps_BT, 0.5, 0.5).tolist() == [[first, 0.0, last]]


def test_nothing_behind_not_a_number():
    nan = float("nan")
    rewards_BT, steps_BT = torch.tensor([[1.0, nan, 2.0]]), torch.tensor([[True, False, True]])
    assert generalised(rewards_BT, torch.tensor([[0.0, nan, 0.0]]), steps_BT, 1, 1).tolist() == [[3.0, 0.0, 2.0]]


@given(numbers=NUMBERS, more=st.integers(0, 3))
def test_whitened_numbers_have_mean_0_and_at_most_variance_1(numbers: list[float], more: int):
    values_BT = torch.tensor([numbers + [7.0] * more], dtype=torch.float64)
    counted_BT = torch.tensor([[True] * len(numbers) + [False] * more], dtype=torch.bool)
    whitened_BT = whiten(values_BT, counted_BT, alone)
    assert not whitened_BT[~counted_BT].any()
    if len(numbers) > 1:
        assert abs(whitened_BT.sum()) < 1e-6
        assert whitened_BT[counted_BT].var() < 1 + 1e-9


@given(number=st.floats(-1e6, 1e6), count=st.integers(0, 50))
def test_equal_numbers_are_whitened_to_exactly_0(number: float, count: int):
    values_BT = torch.full((1, count), number, dtype=torch.float64)
    assert not whiten(values_BT, torch.ones(1, count, dtype=torch.bool), alone).any()
