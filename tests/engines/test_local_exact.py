"""What the local engine decodes is what transformers would: tokens, log-probabilities, whatever the schedule."""

import asyncio
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forage.types import Finish, Sampling, Stop

NEAR_TIE = 1e-5
ALL_KINDS = ["qwen2", "qwen2-tied", "qwen3", "llama", "llama-biased"]
ALL_KINDS += ["llama-llama3-rope", "llama-yarn-rope", "llama-dynamic-rope"]


def random_tokens(seed, n):
    return random.Random(seed).choices(range(256), k=n)


def logits_after(model, context, sampled):
    """Logits [len(sampled), V] that each sampled token was chosen from, by a forward of transformers."""
    with torch.no_grad():
        return model(torch.tensor([context + sampled])).logits[0, len(context) - 1 : -1].float()


def same_up_to_near_tie(model, context, ours, theirs):
    """Whether two continuations agree up to the first position whose two best logits nearly tie."""
    if ours == theirs:
        return True
    n = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    best, second = logits_after(model, context, theirs)[n].topk(2).values
    return best - second < NEAR_TIE


def logprobs_match(model, context, completion, temperature=1.0):
    expected = torch.log_softmax(logits_after(model, context, completion.tokens) / temperature, -1)
    expected = expected.gather(1, torch.tensor(completion.tokens)[:, None]).squeeze(1)
    return torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_greedy_equals_generate(model, engine, ask, kind, kernels):
    contexts = [random_tokens(n, n) for n in (1, 7, 40, 100)]
    completions = ask(engine(kind, kernels=kernels), contexts, Sampling(max_tokens=24, temperature=0))
    for context, completion in zip(contexts, completions, strict=True):
        ids = torch.tensor([context])
        generated = model(kind).generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, pad_token_id=0
        )
        assert same_up_to_near_tie(model(kind), context, completion.tokens, generated[0, len(context) :].tolist())
        assert logprobs_match(model(kind), context, completion)
        assert completion.finish is Finish.LENGTH


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_of_the_sampling_distribution(model, engine, ask, temperature, kernels):
    contexts = [random_tokens(n, n) for n in (3, 50)]
    for context, completion in zip(
        contexts, ask(engine("qwen3", kernels=kernels), contexts, Sampling(20, temperature, seed=5)), strict=True
    ):
        assert logprobs_match(model("qwen3"), context, completion, temperature)


EPISODE = st.tuples(
    st.integers(0, 2),  # group
    st.integers(1, 60),  # tokens of the prompt
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30)), min_size=1, max_size=3),  # sampled, then observed
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["qwen2", "qwen3", "llama"]),
    episodes=st.lists(EPISODE, min_size=1, max_size=7),
    slots=st.integers(1, 5),
    prefill_tokens=st.sampled_from([1, 13, 512]),
    lockstep=st.booleans(),
    temperature=st.sampled_from([0.0, 1.0]),
)
def test_any_mix_of_episodes(model, engine, kernels, kind, episodes, slots, prefill_tokens, lockstep, temperature):
    made = engine(kind, slots=slots, prefill_tokens=prefill_tokens, lockstep=lockstep, kernels=kernels)

    async def play(number, group, prompt, turns):
        context = random_tokens(group, prompt)  # a group's prompts are prefixes of one another
        async with made.session(str(group)) as session:
            for turn, (sampled, observed) in enumerate(turns):
                completion = await session.generate(context, Sampling(sampled, temperature, 10 * number + turn))
                yield context, completion
                context = context + completion.tokens + random_tokens(number + turn, observed)
                await asyncio.sleep(0)

    async def collect(number, episode):
        return [turn async for turn in play(number, *episode)]

    async def everyone():
        return await asyncio.gather(*(collect(n, episode) for n, episode in enumerate(episodes)))

    reference = model(kind)
    for turns in asyncio.run(everyone()):
        for context, completion in turns:
            assert logprobs_match(reference, context, completion)
            if temperature == 0:
                best = logits_after(reference, context, completion.tokens).argmax(-1).tolist()
                assert same_up_to_near_tie(reference, context, completion.tokens, best)


def test_a_sample_depends_on_nothing_but_its_seed(engine, ask, kernels):
    contexts = [random_tokens(n, 5 + n) for n in range(20)]
    samplings = [Sampling(1 + n, temperature=1.0, seed=n) for n in range(20)]
    crowd = ask(engine(slots=7, kernels=kernels), contexts, samplings)
    for context, sampling, completion in zip(contexts, samplings, crowd, strict=True):
        alone = ask(engine(slots=1, kernels=kernels), [context], sampling)[0]
        assert alone.tokens == completion.tokens
    again = ask(engine(), contexts[:1] * 2, [Sampling(16, seed=1), Sampling(16, seed=2)])
    assert again[0].tokens != again[1].tokens


def test_lockstep_repeats_to_the_bit(engine, kernels):
    def run():
        made = engine(slots=3, lockstep=True, kernels=kernels)

        async def play(number):
            context = random_tokens(number % 2, 20)
            async with made.session(str(number % 2)) as session:
                for turn in range(3):
                    completion = await session.generate(context, Sampling(4 + number, 1.0, number * 3 + turn))
                    context = context + completion.tokens + random_tokens(turn, 5)
                    yield completion

        async def collect(number):
            return [completion async for completion in play(number)]

        async def everyone():
            return await asyncio.gather(*map(collect, range(8)))

        return asyncio.run(everyone()), {k: v for k, v in made.take_stats().items() if "seconds" not in k}

    assert run() == run()


def test_bfloat16_stays_near_float32(engine, ask, kernels):
    context = [random_tokens(0, 30)]
    exact, rounded = (
        ask(engine(dtype=d, kernels=kernels), context, Sampling(1, 0))[0] for d in ("float32", "bfloat16")
    )
    assert rounded.logprobs[0] == pytest.approx(exact.logprobs[0], abs=0.3)


def test_a_stop_string_ends_the_turn_at_the_token_that_completes_it(engine, ask):
    free = ask(engine(), [[65, 66]], Sampling(30, seed=3))[0]
    text = bytes(free.tokens[10:12])
    if any(byte > 127 for byte in text):
        text = bytes([next(byte for byte in free.tokens if byte < 128)])
    cut = free.tokens[: bytes(free.tokens).index(text) + len(text)]
    stopped = ask(engine(), [[65, 66]], Sampling(30, seed=3, stop=Stop((text.decode(),))))[0]
    assert stopped.tokens == cut
    assert stopped.finish is Finish.STOP
    ended = ask(engine(), [[65, 66]], Sampling(30, seed=3, stop=Stop(token_ids=(free.tokens[6],))))[0]
    assert ended.tokens == free.tokens[: free.tokens.index(free.tokens[6]) + 1]
    assert ended.finish is Finish.EOS
