from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_policies import FAMILIES, VOCAB, tiny_model

from forage.errors import ConfigError
from forage.models.causal_lm import checkpoint_gradients
from forage.models.layout import layout
from forage.models.packed import attend_packed, check_packable, hidden_states


def packed_and_plain(model, lengths, seed=0):
    """Hidden states of rows in one packed sequence, and of each row alone."""
    generator = torch.Generator().manual_seed(seed)
    tokens_N = torch.randint(VOCAB, (sum(lengths),), generator=generator)
    rows = list(torch.arange(sum(lengths)).split(lengths))
    positions_N = torch.cat([torch.arange(length) for length in lengths])
    with torch.no_grad(), attend_packed(model):
        packed_ND = hidden_states(model, tokens_N, positions_N, layout(rows))
    with torch.no_grad():
        plain_ND = torch.cat([model.base_model(input_ids=tokens_N[row][None]).last_hidden_state[0] for row in rows])
    return packed_ND, plain_ND


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_do_not_see_one_another(family):
    model = tiny_model(family).double()
    packed_ND, plain_ND = packed_and_plain(model, [7, 1, 12, 12, 3])
    torch.testing.assert_close(packed_ND, plain_ND, rtol=1e-9, atol=1e-9)
    assert model.config._attn_implementation == "sdpa"


def test_a_sliding_window_is_kept():
    model = tiny_model("Mistral", sliding_window=4).double()
    packed_ND, plain_ND = packed_and_plain(model, [11, 3, 4, 5])
    torch.testing.assert_close(packed_ND, plain_ND, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["Qwen2", "Mistral"])
@pytest.mark.parametrize("long", [0.0, 0.6, 2.0])
def test_a_shared_prompt_is_computed_once_and_gets_all_its_gradient(family: str, long: float):
    options = {"sliding_window": 4} if family == "Mistral" else {}
    model = tiny_model(family, **options).double()
    prompt, rests = 6, [3, 1, 9, 8]
    tokens_N = torch.randint(VOCAB, (33,), generator=torch.Generator().manual_seed(1))
    own = torch.arange(prompt, prompt + sum(rests)).split(rests)
    rows = [torch.cat([torch.arange(prompt), part]) for part in own]
    rows.append(torch.arange(prompt + sum(rests), 33))  # and one that shares nothing
    positions_N = torch.empty(33, dtype=torch.int64)
    for row in rows:
        positions_N[row] = torch.arange(len(row))

    def gradients(states: list[torch.Tensor]) -> list[torch.Tensor]:
        loss = sum((state[prompt - 1 :] ** 3).sum() for state in states)
        return torch.autograd.grad(loss, list(model.base_model.parameters()))

    with attend_packed(model):
        where = layout(rows, [slice(0, prompt)], long=long)
        packed_ND = hidden_states(model, tokens_N, positions_N, where)
        packed = [packed_ND[row] for row in rows]
        got = gradients(packed)
    plain = [model.base_model(input_ids=tokens_N[row][None]).last_hidden_state[0] for row in rows]
    torch.testing.assert_close(packed, plain, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got, gradients(plain), rtol=1e-4, atol=1e-3)  # norms compute in float32
    assert any(block.queries < block.slots for block in where.blocks) == (long < 1)


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8), fill=st.floats(0.1, 1.0))
def test_every_token_has_a_slot_that_holds_it(lengths: list[int], fill: float):
    rows = list(torch.arange(sum(lengths)).split(lengths))
    where = layout(rows, fill=fill)
    assert where.token_of_slot[where.slot_of_token].tolist() == list(range(sum(lengths)))
    assert len(where.token_of_slot) == sum(block.rows * block.slots for block in where.blocks)
    assert where.padding <= 1 - fill + 1e-9


@pytest.mark.parametrize("family", [*FAMILIES, "Mistral"])
def test_models_with_plain_causal_attention_can_be_packed(family):
    check_packable(tiny_model(family))


@pytest.mark.parametrize("family", ["Gemma2", "Cohere"])
def test_a_model_that_does_more_is_refused(family):
    """Gemma 2 caps its attention scores, Cohere scales its logits."""
    options = {"head_dim": 8} if family == "Gemma2" else {"logit_scale": 0.5}
    with pytest.raises(ConfigError, match="can't be"):
        check_packable(tiny_model(family, **options))


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_states_that_nobody_wants_are_left_out_and_the_others_are_the_same(family: str, checkpointed: bool):
    model = tiny_model(family).double()
    if checkpointed:
        checkpoint_gradients(model)
    rows = list(torch.arange(16).split([7, 9]))
    tokens_N = torch.randint(VOCAB, (16,), generator=torch.Generator().manual_seed(1))
    positions_N = torch.cat([torch.arange(len(row)) for row in rows])
    wanted = torch.tensor([2, 6, 9, 15])
    found = []
    for where in (layout(rows), replace(layout(rows), wanted=wanted)):
        with attend_packed(model):
            states = hidden_states(model, tokens_N, positions_N, where)[wanted]
            found.append([states, *torch.autograd.grad((states**3).sum(), list(model.base_model.parameters()))])
    for whole, narrow in zip(*found, strict=True):
        torch.testing.assert_close(narrow, whole, rtol=1e-6, atol=1e-9)
    assert not model.base_model.layers[-1].mlp._forward_hooks
