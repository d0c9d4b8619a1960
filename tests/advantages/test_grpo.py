import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_policies import groups_of

from forage.advantages.compare import centred, less_others, normalised
from forage.advantages.dr_grpo import DrGRPO
from forage.advantages.grpo import GRPO
from forage.advantages.rloo import RLOO
from forage.batch import collate

REWARDS = st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.8, 1.0]), min_size=1, max_size=8)


@given(reward=st.floats(-10, 10), size=st.integers(1, 9), others=REWARDS)
def test_equal_rewards_give_exactly_nothing(reward: float, size: int, others: list[float]):
    rewards_B = torch.tensor([reward] * size + others, dtype=torch.float64)
    group_B = torch.tensor([4] * size + [1] * len(others))
    for compared_B in (
        centred(rewards_B, group_B),
        less_others(rewards_B, group_B),
        normalised(rewards_B, group_B, 0.1),
    ):
        assert (compared_B[:size] == 0).all()


@given(rewards=REWARDS)
def test_they_sum_to_zero_in_a_group(rewards: list[float]):
    group_B = torch.zeros(len(rewards), dtype=torch.int64)
    assert abs(normalised(torch.tensor(rewards), group_B, 1e-6).sum()) < 1e-6
    assert abs(centred(torch.tensor(rewards), group_B).sum()) < 1e-12


def first_of(estimator) -> list[float]:
    """Advantages of the acted tokens of a row that alone of three was right."""
    batch = estimator(collate(groups_of(rewards=[[1, 0, 0]] * 3)), lambda total: total)
    assert (batch.advantages_BT[~batch.acted_BT] == 0).all()
    return batch.advantages_BT[0][batch.acted_BT[0]].unique().tolist()


def test_one_right_of_three():
    torch.testing.assert_close(first_of(GRPO()), [(1 - 1 / 3) / (1 / 3) ** 0.5], rtol=1e-4, atol=0)
    torch.testing.assert_close(first_of(DrGRPO()), [2 / 3], rtol=1e-6, atol=0)
    assert first_of(RLOO()) == [1]
