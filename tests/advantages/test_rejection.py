import torch
from tiny_policies import groups_of

from forage.advantages.rejection import Rejection
from forage.batch import collate

REWARDS = [[1.0, 0.0, 0.7], [0.7, 1.0, 1.0], [0.0, -1.0, 0.0]]


def kept(**options):
    batch = Rejection(**options)(collate(groups_of(rewards=REWARDS)), lambda total: total)
    assert torch.equal(batch.advantages_BT != 0, batch.acted_BT & batch.advantages_BT.any(1)[:, None])
    assert set(batch.advantages_BT.unique().tolist()) <= {0.0, 1.0}
    return batch.advantages_BT.any(1).int().view(3, 3).tolist()


def test_any_reward_above_0_is_right():
    assert kept() == [[1, 0, 1], [1, 1, 1], [0, 0, 0]]


def test_the_threshold_itself_is_right():
    assert kept(threshold=0.7) == [[1, 0, 1], [1, 1, 1], [0, 0, 0]]
    assert kept(threshold=1.0) == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_the_first_right_samples_of_a_question():
    assert kept(per_question=1) == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert kept(per_question=2, threshold=1.0) == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
