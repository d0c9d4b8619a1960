import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forage.engines.sampler import invert, sample, uniforms


def test_uniforms_depend_on_the_seed_alone():
    assert uniforms(7, 5).tolist() == uniforms(7, 9).tolist()[:5]
    assert uniforms(7, 5).tolist() != uniforms(8, 5).tolist()
    assert uniforms(7, 1000).max() < 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=300).filter(any), st.integers(0, 2**24 - 1))
def test_the_drawn_index_is_the_one_whose_share_holds_the_number(counts, number):
    index = invert(torch.tensor([counts], dtype=torch.float32), torch.tensor([number / 2**24])).item()
    cumulative = np.cumsum(counts)
    target = number / 2**24 * cumulative[-1]
    assert counts[index] > 0
    assert cumulative[index] - counts[index] <= target * (1 + 1e-6)
    assert target * (1 - 1e-6) < cumulative[index]


def test_the_largest_number_never_draws_a_weightless_token():
    weights = torch.zeros(1, 300)
    weights[0, 4:200] = torch.rand(196, generator=torch.Generator().manual_seed(0)) * 1e-3
    weights[0, 200] = 1e-9
    assert invert(weights, torch.tensor([1 - 2**-24])).item() <= 200
    assert invert(weights, torch.tensor([0.0])).item() == 4


@pytest.mark.parametrize("vocab", [5, 128, 300])
def test_frequencies_follow_the_distribution(vocab):
    logits = torch.randn(1, vocab, generator=torch.Generator().manual_seed(1)) * 2
    n = 20_000
    tokens, logprobs = sample(logits.expand(n, -1), 0.7, torch.from_numpy(uniforms(3, n)))
    expected = torch.log_softmax(logits[0] / 0.7, -1)
    seen = torch.bincount(tokens, minlength=vocab) / n
    assert torch.allclose(seen, expected.exp(), atol=4 / math.sqrt(n))
    assert torch.allclose(logprobs, expected[tokens], atol=1e-5)


def test_greedy_rows_stand_beside_sampled_ones():
    logits = torch.tensor([[0.0, 3.0, 1.0]]).expand(2, -1)
    tokens, logprobs = sample(logits, torch.tensor([0.0, 0.5]), torch.tensor([0.0, 0.0]))
    assert tokens.tolist() == [1, 0]
    assert torch.allclose(logprobs[0], torch.log_softmax(logits[0], -1)[1])


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_one_temperature_for_all_rows_is_that_of_each(temperature):
    logits = torch.randn(6, 200, generator=torch.Generator().manual_seed(0))
    numbers = torch.from_numpy(uniforms(0, 6))
    together, each = sample(logits, temperature, numbers), sample(logits, torch.full((6,), temperature), numbers)
    assert together[0].tolist() == each[0].tolist()
    assert torch.equal(together[1], each[1])
