"""Compiled kernels compute what torch's do, whatever the sizes and the number of threads."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.engines.kernels import TorchKernels, choose
from forage.engines.kv import KVCache
from forage.engines.rows import State
from forage.engines.sampler import uniforms
from forage.engines.weights import Layer, Shape
from forage.errors import ConfigError

CPU = torch.device("cpu")
TOKENS = 70
HALVES = st.sampled_from([3, 8, 13, 32])
"""Of the width of a head; for each one attention is compiled anew."""


@pytest.fixture(scope="module")
def numba_kernels():
    pytest.importorskip("numba", reason="numba (the extra `fast`) is not installed")
    return choose("numba", CPU)


def make_shape(group, kv_heads, half, head_norms):
    return Shape(
        layers=1, width=8, heads=group * kv_heads, kv_heads=kv_heads, head_dim=2 * half, mlp=8, vocab=8, eps=1e-6,
        tied=True, qkv_bias=False, out_bias=False, mlp_bias=False, head_norms=head_norms,
    )  # fmt: skip


def random_layer(shape, generator):
    norms = [torch.rand(shape.head_dim, generator=generator) + 0.5 if shape.head_norms else None for _ in range(2)]
    unused = torch.empty(0)
    return Layer(
        norm=unused, qkv=unused, qkv_bias=None, q_norm=norms[0], k_norm=norms[1], out=unused, out_bias=None,
        mlp_norm=unused, gate=unused, gate_bias=None, up=unused, up_bias=None, down=unused, down_bias=None,
    )  # fmt: skip


def attended(kind, shape, rows, seed):
    """Two steps of attention over random KV of random length, and the KV afterwards [2, rows, H, D, TOKENS]."""
    generator = torch.Generator().manual_seed(seed)
    kv = KVCache(
        1, rows, shape.kv_heads, shape.head_dim, TOKENS, torch.float32, CPU, keys_by_position=kind.keys_by_position
    )
    keys, values = next(kv.layers())
    keys.copy_(torch.randn(keys.shape, generator=generator))
    values.copy_(torch.randn(values.shape, generator=generator))
    angles = torch.rand(TOKENS, shape.head_dim // 2, generator=generator)
    kernels = kind(shape, kv, torch.polar(torch.ones_like(angles), angles))
    layer, columns = random_layer(shape, generator), (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    positions = torch.randint(0, TOKENS - 2, (rows,), generator=generator)
    outs = []
    for step in range(2):
        products = torch.randn(rows, columns, generator=generator)
        attend = kernels.attention(positions + step, int(positions.max()) + step + 1)
        outs.append(attend(0, layer, products))
    return torch.stack(outs), keys, values


@settings(max_examples=40, deadline=None)
@given(
    group=st.integers(1, 5),
    kv_heads=st.integers(1, 3),
    half=HALVES,
    rows=st.integers(1, 6),
    head_norms=st.booleans(),
    seed=st.integers(0, 99),
)
def test_attention_is_that_of_torch(numba_kernels, group, kv_heads, half, rows, head_norms, seed):
    shape = make_shape(group, kv_heads, half, head_norms)
    for ours, theirs in zip(
        attended(numba_kernels, shape, rows, seed), attended(TorchKernels, shape, rows, seed), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_the_number_of_threads_changes_no_bit(numba_kernels):
    shape = make_shape(3, 2, 16, True)
    alone = attended(numba_kernels, shape, 7, 0)[0]
    torch.set_num_threads(3)
    try:
        together = attended(numba_kernels, shape, 7, 0)[0]
    finally:
        torch.set_num_threads(1)
    assert torch.equal(alone, together)


@settings(max_examples=40, deadline=None)
@given(half=HALVES, lengths=st.tuples(*[st.integers(1, TOKENS - 1)] * 2), seed=st.integers(0, 9))
def test_what_is_shared_is_read_from_its_holder_to_the_same_bits(numba_kernels, half, lengths, seed):
    shape, generator = make_shape(3, 2, half, True), torch.Generator().manual_seed(seed)
    kv = KVCache(1, 3, shape.kv_heads, shape.head_dim, TOKENS, torch.float32, CPU, keys_by_position=True)
    for stored in next(kv.layers()):
        stored.copy_(torch.randn(stored.shape, generator=generator))
    kernels = numba_kernels(shape, kv, torch.ones(TOKENS, half, dtype=torch.complex64))
    layer = random_layer(shape, generator)
    products = torch.randn(3, (shape.heads + 2 * shape.kv_heads) * shape.head_dim, generator=generator)
    attend = kernels.attention(torch.tensor([TOKENS - 1, *lengths]), TOKENS)
    for row, length in enumerate(lengths, 1):
        kv.copy(0, row, length)
    shared = attend(0, layer, products.clone())
    for row in (1, 2, 1):  # what one forgets, the other inherits
        kv.prefixes.changing(row, 0)
    kv.prefixes.changing(0, 0)
    assert not kv.prefixes.lengths.any()
    assert torch.equal(attend(0, layer, products.clone()), shared)
    for row, length in enumerate(lengths, 1):
        kv.copy(0, row, length)
        for keys, values in kv.layers():
            keys[row, ..., :length] = values[row, :, :length] = torch.nan
    assert torch.equal(attend(0, layer, products.clone()), shared)


def some_kernels(kind):
    shape = make_shape(1, 1, 1, False)
    return kind(shape, KVCache(1, 1, 1, 2, 4, torch.float32, CPU), torch.ones(4, 1, dtype=torch.complex64))


def test_norms_and_gates_are_those_of_torch(numba_kernels):
    x = torch.linspace(-200, 200, 3 * 67).view(3, 67)
    weight = torch.linspace(0.5, 2, 67)
    ours, theirs = some_kernels(numba_kernels), some_kernels(TorchKernels)
    torch.testing.assert_close(ours.norm(x, weight), theirs.norm(x, weight))
    torch.testing.assert_close(ours.gate(x.clone(), x.flip(0).contiguous()), theirs.gate(x.clone(), x.flip(0)))
    small = torch.linspace(-20, 20, 5000).view(5, -1)
    torch.testing.assert_close(ours.gate(small.clone(), small), theirs.gate(small.clone(), small), rtol=1e-5, atol=1e-9)


def drawn(kernels, logits, temperature, numbers):
    """Tokens and logprobs [R] of one step from logits [R, V] with these uniform numbers [R]."""
    R = len(logits)
    unwatched = torch.zeros(1, logits.shape[1], dtype=torch.bool)
    state = State(torch.zeros(R, 5, dtype=torch.int64), numbers[:, None], torch.zeros(R, 1).long(), torch.zeros(R, 1))
    kernels.step(state, logits, temperature, unwatched)
    return state.tokens[:, 0], state.logprobs[:, 0]


@pytest.mark.parametrize("vocab", [5, 128, 300, 1025])
@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0, torch.tensor([0.0, 0.5, 1.0, 2.0]).repeat(100)])
def test_draws_are_those_of_torch(numba_kernels, vocab, temperature):
    generator = torch.Generator().manual_seed(vocab)
    logits = 4 * torch.randn(400, vocab, generator=generator)
    numbers = torch.from_numpy(uniforms(1, 400))
    numbers[:8] = torch.tensor([0.0, 1 - 2**-24]).repeat(4)
    ours, theirs = (drawn(some_kernels(kind), logits, temperature, numbers) for kind in (numba_kernels, TorchKernels))
    # the largest number may stand for either of two tokens, by the rounding of their sum
    assert ours[0][8:].tolist() == theirs[0][8:].tolist()
    assert ours[0][:8:2].tolist() == theirs[0][:8:2].tolist()
    torch.testing.assert_close(ours[1][8:], theirs[1][8:], rtol=1e-5, atol=1e-5)


def test_steps_are_those_of_torch(numba_kernels):
    generator = torch.Generator().manual_seed(5)
    rows, slots, vocab, steps = 7, 9, 40, 4
    watched = torch.rand(3, vocab, generator=generator) < 0.3
    numbers = torch.stack([torch.arange(slots), torch.arange(slots) + 20, *torch.zeros(3, slots).long()], 1)
    numbers[:, 3], numbers[:, 4] = torch.tensor([1, 2, 3] * 3), torch.tensor([0, 1, 2] * 3)
    states = [
        State(numbers.clone(), torch.from_numpy(uniforms(2, slots * steps)).view(slots, steps),
              torch.zeros(slots, steps).long(), torch.zeros(slots, steps)) for _ in range(2)
    ]  # fmt: skip
    for _ in range(steps):
        logits = torch.randn(rows, vocab, generator=generator)
        over = [
            some_kernels(kind).step(state, logits, 0.8, watched)
            for kind, state in zip((numba_kernels, TorchKernels), states, strict=True)
        ]
        assert over[0].tolist() == over[1].tolist()
    for ours, theirs in zip(*states, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert states[0].numbers[rows:].equal(numbers[rows:])


@given(
    likely=st.lists(st.booleans(), min_size=1, max_size=300).filter(any),
    uniform=st.sampled_from([0.0, 0.5, 1 - 2**-24]),
    seed=st.integers(0, 9),
)
def test_a_token_of_no_weight_is_never_drawn(numba_kernels, likely, uniform, seed):
    logits = torch.where(
        torch.tensor(likely), torch.randn(len(likely), generator=torch.Generator().manual_seed(seed)), -torch.inf
    )
    token, logprob = drawn(some_kernels(numba_kernels), logits[None], 1.0, torch.tensor([uniform]))
    assert likely[token]
    torch.testing.assert_close(logprob, torch.log_softmax(logits, 0)[token], rtol=1e-5, atol=1e-5)


def test_what_is_not_a_number_stays_so(numba_kernels):
    kernels = some_kernels(numba_kernels)
    spoilt = torch.full((1, 40), torch.nan)
    assert kernels.norm(spoilt, torch.ones(40)).isnan().all()
    assert kernels.gate(spoilt.clone(), torch.ones(1, 40)).isnan().all()
    for temperature in (0.0, 1.0):
        token, logprob = drawn(kernels, spoilt, temperature, torch.tensor([0.5]))
        assert 0 <= token < 40
        assert logprob.isnan().all()
    shape = make_shape(2, 1, 4, False)
    kv = KVCache(1, 1, 1, 8, TOKENS, torch.float32, CPU, keys_by_position=True)
    attend = numba_kernels(shape, kv, torch.ones(TOKENS, 4, dtype=torch.complex64)).attention(torch.tensor([9]), 10)
    products = torch.ones(1, 32)
    products[0, :16] = torch.nan
    assert np.isnan(attend(0, random_layer(shape, torch.Generator()), products).numpy()).all()


def test_compiled_kernels_need_a_cpu():
    with pytest.raises(ConfigError, match="CPU"):
        choose("numba", torch.device("cuda"))
    assert choose("auto", torch.device("cuda")) is TorchKernels
    assert choose("torch", CPU) is TorchKernels


def test_exponentials_are_exact_to_the_last_bits():
    pytest.importorskip("numba", reason="numba (the extra `fast`) is not installed")
    from forage.engines.vectors import exp

    for x in np.linspace(-60, 60, 500, dtype=np.float32):
        assert exp(x) == pytest.approx(np.exp(float(x)), rel=1e-7 * abs(float(x)) + 2e-7)


def test_what_is_compiled_need_not_be_kept():
    pytest.importorskip("numba", reason="numba (the extra `fast`) is not installed")
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "NUMBA_CACHE_DIR": ""}
    script = "import numpy; from forage.engines.vectors import exp; print(exp(numpy.float32(1)))"
    said = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | nowhere, capture_output=True, text=True, check=True
    )
    assert float(said.stdout) == pytest.approx(np.e, rel=1e-6)
