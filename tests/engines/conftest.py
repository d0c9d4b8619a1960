import asyncio
from functools import cache
from importlib.util import find_spec

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from forage.engines.local import LocalEngine
from forage.testing import ByteTokenizer
from forage.types import Sampling

torch.set_num_threads(1)  # models this small gain nothing from more, and lose much where cores are shared

SIZES = {
    "vocab_size": 257,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": None,
    "bos_token_id": None,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0, "original_max_position_embeddings": 64}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "rope_theta": 10_000.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen2-tied": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32}),
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "llama-biased": (LlamaConfig, LlamaForCausalLM, {"attention_bias": True, "mlp_bias": True}),
    "llama-llama3-rope": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA3}),
    "llama-dynamic-rope": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": DYNAMIC}),
    "llama-yarn-rope": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": YARN}),
}


@cache
def make_model(kind, seed=0, **options):
    """A random model with peaked predictions; biases and norms are random too, so that a forgotten one shows."""
    config, model, own = KINDS[kind]
    torch.manual_seed(seed)
    made = model(config(**SIZES | own | options)).eval()
    for name, parameter in made.named_parameters():
        mean = 1.0 if "norm" in name else 0.0
        torch.nn.init.normal_(parameter, mean, 0.3 if parameter.ndim == 1 else 0.2)
    return made


WITHOUT_NUMBA = pytest.mark.skipif(find_spec("numba") is None, reason="numba (the extra `fast`) is not installed")


@pytest.fixture(scope="session", params=["torch", pytest.param("numba", marks=WITHOUT_NUMBA)])
def kernels(request):
    """Both kinds of kernels, where both are installed."""
    return request.param


@pytest.fixture(scope="session")
def model():
    """kind, seed=0, **config -> a small random model."""
    return make_model


@pytest.fixture
def engine(model):
    """kind, **options -> a local engine over a small model, with a tokenizer of bytes."""

    def make(kind="qwen2", **options):
        return LocalEngine(model(kind), ByteTokenizer(), **{"slots": 8, "max_tokens": 192} | options)

    return make


@pytest.fixture
def ask():
    """engine, contexts, sampling -> one completion a context, all asked at once, each in a session of its own."""

    def make(engine, contexts, sampling, group="g"):
        samplings = [sampling] * len(contexts) if isinstance(sampling, Sampling) else sampling

        async def one(context, sampling):
            async with engine.session(group) as session:
                return await session.generate(context, sampling)

        async def everyone():
            return await asyncio.gather(*map(one, contexts, samplings))

        return asyncio.run(everyone())

    return make
