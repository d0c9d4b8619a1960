import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_policies import groups_of

from forage.advantages.grpo import GRPO
from forage.batch import collate

REWARDS = st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.8, 1.0]), min_size=1, max_size=8)


@given(reward=st.floats(-10, 10, width=32), size=st.integers(1, 9))
def test_equal_rewards_give_exactly_nothing(reward: float, size: int):
    advantages = GRPO().of_rewards(torch.full((size,), reward), torch.zeros(size, dtype=torch.int64))
    assert (advantages == 0).all()


@given(first=REWARDS, second=REWARDS)
def test_groups_do_not_see_one_another(first: list[float], second: list[float]):
    estimator = GRPO()
    together = estimator.of_rewards(torch.tensor(first + second), torch.tensor([7] * len(first) + [2] * len(second)))
    alone = [
        estimator.of_rewards(torch.tensor(group), torch.zeros(len(group), dtype=torch.int64))
        for group in (first, second)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


@given(rewards=REWARDS)
def test_they_sum_to_zero_in_a_group(rewards: list[float]):
    advantages = GRPO().of_rewards(
        torch.tensor(rewards, dtype=torch.float64), torch.zeros(len(rewards), dtype=torch.int64)
    )
    assert abs(advantages.sum()) < 1e-9


def test_observed_tokens_get_none():
    batch = GRPO()(collate(groups_of(rewards=[[1, 0, 0]] * 3)), lambda total: total)
    assert (batch.advantages_BT[~batch.acted_BT] == 0).all()
    first = batch.advantages_BT[0][batch.acted_BT[0]]
    torch.testing.assert_close(first, torch.full_like(first, (1 - 1 / 3) / (1 / 3) ** 0.5), rtol=1e-4, atol=0)
