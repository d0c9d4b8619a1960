"""Language models of a few thousand weights, and made-up episodes for them."""

import random

import torch
import transformers

from forage.models.causal_lm import Policy
from forage.types import Answer, Completion, Finish, Group, Question, Scores, Search, StopReason, Trajectory, Turn

VOCAB = 48
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": None,
}
FAMILIES = ("Qwen2", "Qwen3", "Llama")


def tiny_model(family="Qwen2", seed=0, **options):
    """Random weights, large enough that attention matters."""
    torch.manual_seed(seed)
    if family == "Qwen3":
        options = {"head_dim": 8} | options
    config = getattr(transformers, f"{family}Config")(**(SHAPE | {"initializer_range": 0.3} | options))
    return getattr(transformers, f"{family}ForCausalLM")(config)


def tiny_policy(family="Qwen2", dtype=torch.float32, seed=0, **options):
    model = tiny_model(family, seed, **options)
    if dtype is torch.float64:
        model = model.double()
    return Policy(model, None, dtype, None, (1,), None)


def episode(rng, prompt, turns=2, group="g", sample=0):
    """A prompt, then turns of 1-4 sampled tokens with 0-5 observed ones between; every other sample is of one tree."""
    row = Trajectory(Question("q", "", ("a",)), group, sample, tree=sample % 2)
    row.observe(prompt)
    for turn in range(turns):
        size = rng.randint(1, 4)
        logprobs = [-rng.random() * 4 for _ in range(size)]
        row.act(Completion([rng.randrange(VOCAB) for _ in range(size)], logprobs, [0] * size, Finish.STOP))
        row.turns.append(Turn(Search(("q",)) if turn < turns - 1 else Answer("a")))
        if turn < turns - 1:
            row.observe([rng.randrange(VOCAB) for _ in range(rng.randint(0, 5))])
    row.stop = StopReason.ANSWERED
    return row


def groups_of(seed=0, groups=3, samples=3, rewards=None):
    """Groups whose rows share a prompt; rewards are 0 and 1 at random, or as given by group."""
    rng = random.Random(seed)
    made = []
    for g in range(groups):
        prompt = [rng.randrange(VOCAB) for _ in range(rng.randint(1, 6))]
        rows = [episode(rng, prompt, rng.randint(1, 3), f"g{g}", s) for s in range(samples)]
        scores = rewards[g] if rewards else [float(s == 0 or rng.random() < 0.5) for s in range(samples - 1)] + [0.0]
        made.append(Group(rows, [Scores(score) for score in scores]))
    return made
