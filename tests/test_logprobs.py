import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forage.logprobs import head_logprobs, logprobs_and_entropy, rows_per_chunk


def inputs(tokens, vocab, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocab, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(vocab, generator=generator, dtype=torch.float64, requires_grad=True)
    return hidden, weight, bias, torch.randint(vocab, (tokens,), generator=generator)


@given(
    tokens=st.integers(1, 9), vocab=st.integers(2, 11), temperature=st.sampled_from([1.0, 0.7]), biased=st.booleans()
)
def test_the_head_equals_full_logits_in_value_and_gradient(tokens: int, vocab: int, temperature: float, biased: bool):
    hidden, weight, bias, labels = inputs(tokens, vocab)
    bias = bias if biased else None
    logits = torch.nn.functional.linear(hidden, weight, bias) / temperature
    expected = logprobs_and_entropy(logits, labels)
    ours = head_logprobs(hidden, weight, bias, labels, temperature)
    parameters = [tensor for tensor in (hidden, weight, bias) if tensor is not None]
    mix = torch.linspace(-1, 2, tokens, dtype=torch.float64)
    for pair in (expected, ours):
        torch.testing.assert_close(pair, expected)
    wanted = torch.autograd.grad((expected[0] * mix).sum() + (expected[1] * mix.flip(0)).sum(), parameters)
    got = torch.autograd.grad((ours[0] * mix).sum() + (ours[1] * mix.flip(0)).sum(), parameters)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_no_more_than_a_chunk_of_logits_exists_at_a_time():
    """With 5 million logits in all, no tensor of the computation holds more than a chunk of them."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return result

    vocab, tokens = 5_000, 1_000
    hidden = torch.randn(tokens, 4, requires_grad=True)
    weight = torch.randn(vocab, 4, requires_grad=True)
    with Watch():
        logprobs, _ = head_logprobs(hidden, weight, None, torch.arange(tokens))
        logprobs.sum().backward()
    assert largest == rows_per_chunk(vocab) * vocab < vocab * tokens / 3


def test_without_an_entropy_term_its_gradient_is_not_asked_for():
    hidden, weight, bias, labels = inputs(5, 7)
    logprobs, _ = head_logprobs(hidden, weight, bias, labels)
    (grad,) = torch.autograd.grad(logprobs.sum(), hidden)
    logits = torch.nn.functional.linear(hidden, weight, bias)
    (expected,) = torch.autograd.grad(logprobs_and_entropy(logits, labels)[0].sum(), hidden)
    torch.testing.assert_close(grad, expected)


def test_logits_are_softmaxed_in_float32_even_if_computed_in_bfloat16():
    hidden, weight, _, labels = inputs(5, 7)
    logprobs, entropy = head_logprobs(hidden.bfloat16(), weight.bfloat16(), None, labels)
    assert logprobs.dtype == entropy.dtype == torch.float32
    assert logprobs.tolist() == pytest.approx(head_logprobs(hidden, weight, None, labels)[0].tolist(), abs=0.1)
