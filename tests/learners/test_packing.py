import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_policies import groups_of

from forage.batch import collate
from forage.learners.packing import micro_batches


@given(seed=st.integers(0, 10**6), budget=st.integers(1, 120), share=st.booleans())
def test_every_acted_token_is_a_target_once_and_stands_behind_its_context(seed: int, budget: int, share: bool):
    batch = collate(groups_of(seed))
    labels = []
    for micro in micro_batches(batch, budget, share_prompts=share):
        labels += micro.labels_M.tolist()
        rows = len(micro.batch.lengths_B)
        assert len(micro.tokens_N) <= max(budget, int(micro.batch.lengths_B.max())) or rows == 1
        spread = micro.spread(micro.tokens_N[micro.before_M].float())
        previous_BT = torch.nn.functional.pad(micro.batch.tokens_BT[:, :-1], (1, 0))
        assert torch.equal(spread.long(), previous_BT * micro.batch.acted_BT)
    assert labels == batch.tokens_BT[batch.acted_BT].tolist()


def test_a_shared_prompt_stands_in_the_sequence_once():
    groups = groups_of(seed=1, groups=2, samples=4)
    batch = collate(groups)
    (apart,) = micro_batches(batch, 10**6, share_prompts=False)
    (together,) = micro_batches(batch, 10**6)
    prompts = [int(torch.tensor(group.trajectories[0].acted).argmax()) for group in groups]
    assert len(apart.tokens_N) == int(batch.lengths_B.sum())
    assert len(together.tokens_N) == len(apart.tokens_N) - 3 * sum(prompts)


def test_prompts_that_differ_are_shared_as_far_as_they_agree():
    (group,) = groups_of(seed=1, groups=1, samples=2)
    group.trajectories[1].tokens[0] += 1
    (micro,) = micro_batches(collate([group]), 10**6)
    assert len(micro.tokens_N) == sum(len(row.tokens) for row in group.trajectories)
