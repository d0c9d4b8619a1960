"""Sessions of the local engine: queueing, KV reuse, weight updates, cancellation, errors."""

import asyncio

import pytest
import torch

from forage.engines.local import LocalEngine
from forage.errors import CheckpointError, ConfigError, TrainingError
from forage.testing import ByteTokenizer
from forage.types import Sampling

PROMPT = list(range(50))


def test_only_new_tokens_are_prefilled(engine):
    made = engine(lockstep=True)

    async def play():
        async with made.session("g") as session:
            first = await session.generate(PROMPT, Sampling(5, 0))
            made.take_stats()
            await session.generate([*PROMPT, *first.tokens, 1, 2, 3], Sampling(4, 0))
            return made.take_stats()

    stats = asyncio.run(play())
    assert stats["reused_tokens"] == 50 + 4  # the last sampled token of a turn has no KV yet
    assert stats["prefill_tokens"] == 1 + 2  # and the last token of a context is the first decoding step's
    assert stats["decode_tokens"] == stats["ticks"] == 4
    assert stats["decode_seconds"] > 0


def test_a_context_that_went_another_way_is_cut_back(model, engine, ask):
    made = engine("llama")
    other = [*PROMPT[:20], 7, 7, 7]

    async def play():
        async with made.session("g") as session:
            await session.generate(PROMPT, Sampling(5, 0))
            made.take_stats()
            return await session.generate(other, Sampling(5, 0))

    assert asyncio.run(play()).tokens == ask(engine("llama"), [other], Sampling(5, 0))[0].tokens
    assert made.take_stats()["reused_tokens"] == 20


@pytest.mark.parametrize("cut", [0, 1])
def test_a_context_that_is_cut_leaves_the_rest_of_its_group_alone(engine, ask, cut, kernels):
    contexts = [[*PROMPT, 3], [*PROMPT, 3]]
    contexts[cut] = PROMPT[:20]
    made = engine("llama", kernels=kernels)

    async def play():
        async with made.session("g") as one, made.session("g") as other:
            await asyncio.gather(*(session.generate(PROMPT, Sampling(1, 0)) for session in (one, other)))
            turns = zip((one, other), contexts, strict=True)
            return await asyncio.gather(*(session.generate(context, Sampling(9, 0)) for session, context in turns))

    for context, completion in zip(contexts, asyncio.run(play()), strict=True):
        alone = ask(engine("llama", kernels=kernels), [context], Sampling(9, 0))[0]
        assert completion.tokens == alone.tokens
        assert completion.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_a_group_prefills_its_prompt_once(engine, ask):
    made = engine(lockstep=True)
    ask(made, [PROMPT] * 6, Sampling(3))
    stats = made.take_stats()
    assert stats["prefill_tokens"] == 49
    assert stats["reused_tokens"] == 5 * 49
    ask(made, [PROMPT, [*PROMPT, 8, 9]], Sampling(3))
    assert made.take_stats()["prefill_tokens"] == 49 + 2


def test_sessions_beyond_the_slots_queue_in_order(engine):
    made = engine(slots=2)
    order = []

    async def play(number):
        async with made.session(str(number)) as session:
            order.append(number)
            await session.generate([number], Sampling(3))

    async def everyone():
        await asyncio.gather(*map(play, range(7)))

    asyncio.run(everyone())
    assert order == list(range(7))


def test_a_slow_search_does_not_hold_up_the_others(engine):
    made = engine(lockstep=False)
    finished = []

    async def play(name, pause_s):
        async with made.session(name) as session:
            context = (await session.generate([1], Sampling(2))).tokens
            await asyncio.sleep(pause_s)
            await session.generate([1, *context, 2], Sampling(8))
            finished.append(name)

    async def everyone():
        await asyncio.gather(play("slow", 0.2), play("fast", 0), play("other", 0))

    asyncio.run(everyone())
    assert finished[-1] == "slow"


def test_new_weights_drop_the_kv_and_mark_the_tokens(model, engine, ask):
    made = engine("llama")
    new = model("llama", seed=1)

    async def play():
        async with made.session("g") as session:
            first = await session.generate(PROMPT, Sampling(5, 0))
            made.load_weights(new.state_dict().items(), version=3)
            context = [*PROMPT, *first.tokens]
            return context, first, await session.generate(context, Sampling(5, 0))

    context, first, second = asyncio.run(play())
    assert (first.versions, second.versions) == ([0] * 5, [3] * 5)
    fresh = LocalEngine(new, ByteTokenizer(), slots=1, max_tokens=96)
    assert ask(fresh, [context], Sampling(5, 0))[0].tokens == second.tokens


def test_weights_that_arrive_in_the_middle_of_a_turn(model, engine, ask):
    made = engine("llama")
    new = model("llama", seed=1)

    def update(_token):
        seen.append(_token)
        if len(seen) == 4:
            asyncio.get_running_loop().call_soon(made.load_weights, list(new.named_parameters()), 1)

    async def play():
        async with made.session("g") as session:
            return await session.generate(PROMPT, Sampling(10, 0), update)

    seen = []
    completion = asyncio.run(play())
    assert completion.tokens == seen
    old = completion.versions.count(0)
    assert completion.versions == [0] * old + [1] * (10 - old)
    assert old in (4, 5)
    fresh = LocalEngine(new, ByteTokenizer(), slots=1, max_tokens=96)
    rest = ask(fresh, [PROMPT + completion.tokens[:old]], Sampling(10 - old, 0))[0]
    assert completion.tokens[old:] == rest.tokens


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("model.norm.weight"), "1 parameters are missing, first model.norm.weight"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "no parameter 'extra'"),
        (lambda weights: weights.update({"model.norm.weight": torch.zeros(3)}), r"shape \[3\], the model's is \[48\]"),
    ],
)
def test_weights_of_another_model_are_refused(model, engine, ask, change, message):
    made = engine("qwen2-tied")
    weights = dict(model("qwen2-tied").named_parameters())
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        made.load_weights(weights.items(), version=1)
    with pytest.raises(CheckpointError, match="load them again"):
        ask(made, [[1]], Sampling(1))
    made.load_weights(model("qwen2-tied").state_dict().items(), version=2)
    assert ask(made, [[1]], Sampling(1))[0].versions == [2]


@pytest.mark.parametrize("lockstep", [True, False])
def test_a_cancelled_session_frees_its_slot(engine, lockstep):
    made = engine(slots=1, lockstep=lockstep)

    async def play(tokens, on_token=None):
        async with made.session("g") as session:
            return await session.generate([1], Sampling(tokens), on_token)

    async def everyone():
        streaming = asyncio.Event()
        first = asyncio.create_task(play(100, lambda _token: streaming.set()))
        queued = asyncio.create_task(play(100))
        last = asyncio.create_task(play(4))
        await streaming.wait()
        queued.cancel()
        first.cancel()
        return await asyncio.gather(first, queued, last, return_exceptions=True)

    first, queued, last = asyncio.run(everyone())
    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(queued, asyncio.CancelledError)
    assert len(last.tokens) == 4


def test_an_error_reaches_everyone_who_waits_and_passes(engine, ask):
    made = engine()

    def fail(_token):
        raise OSError("the listener hung up")

    async def play(on_token):
        async with made.session("g") as session:
            return await session.generate(PROMPT, Sampling(5), on_token)

    async def everyone():
        return await asyncio.gather(play(fail), play(None), return_exceptions=True)

    assert [str(error) for error in asyncio.run(everyone())] == ["the listener hung up"] * 2
    assert len(ask(made, [PROMPT], Sampling(5))[0].tokens) == 5


def test_diverged_weights_are_named(model, engine, ask):
    made = engine()
    made.load_weights([(n, torch.full_like(p, torch.nan)) for n, p in model("qwen2").named_parameters()], 1)
    with pytest.raises(TrainingError, match="diverged"):
        ask(made, [[1]], Sampling(2))


@pytest.mark.parametrize(
    ("context", "max_tokens", "error", "message"),
    [
        ([1] * 190, 3, ConfigError, "190 tokens and a turn of 3 don't fit into engine.max_tokens = 192"),
        ([1, 300], 3, ConfigError, "token 300 is not among the model's 257"),
        ([], 3, ValueError, "nothing to decode"),
        ([1], 0, ValueError, "nothing to decode"),
    ],
)
def test_what_can_not_be_decoded(engine, ask, context, max_tokens, error, message):
    with pytest.raises(error, match=message):
        ask(engine(), [context], Sampling(max_tokens))


def test_a_session_generates_one_turn_at_a_time(engine):
    async def twice():
        async with engine().session("g") as session:
            await asyncio.gather(session.generate([1], Sampling(2)), session.generate([1], Sampling(2)))

    with pytest.raises(RuntimeError, match="one turn at a time"):
        asyncio.run(twice())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sliding window"),
        ("llama", {"hidden_act": "gelu"}, "'silu'; this model has 'gelu'"),
        ("llama-dynamic-rope", {}, "engine.max_tokens to at most 256"),
    ],
)
def test_what_is_not_computed_exactly_is_refused(model, kind, options, message):
    with pytest.raises(ConfigError, match=message):
        LocalEngine(model(kind, **options), ByteTokenizer(), slots=1, max_tokens=300)


def test_another_architecture_is_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    with pytest.raises(ConfigError, match="llama, qwen2, qwen3; this model is 'gpt2'"):
        LocalEngine(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=8)), ByteTokenizer())


def test_options_must_make_sense(engine):
    with pytest.raises(ConfigError, match=r"engine.slots must be at least 1"):
        engine(slots=0)
