"""What a run will need, as far as it can be said before it starts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from forage.config import Config

MASTER, MOMENTS, GRADIENT = 4, 8, 4  # bytes a parameter, in float32
WIDTH = {"float32": 4, "bfloat16": 2}


def needs(config: Config) -> list[str]:
    """Lines for a person: episodes, memory of weights and optimizer, and of the KV of running episodes.

    The size of a model that is not on this machine is taken from its name (`Qwen2.5-3B`).
    """
    limits = config.rollout
    episodes = limits.questions * limits.samples
    lines = [
        f"{config.train.steps:,} steps; each plays {limits.questions} questions x {limits.samples} = "
        f"{episodes:,} episodes of up to {limits.max_tokens:,} tokens and {limits.max_searches} searches"
    ]
    shape = _shape(_folder(config.model.path))
    if parameters := _parameters(config.model.path, shape):
        lines.append(_weights(config, parameters))
    else:
        lines.append(f"the size of {config.model.path} is not known here")
    if shape:
        lines.append(_kv(config, shape))
    else:
        lines.append("the KV of running episodes comes on top; its size is known once the model is on this machine")
    return [
        *lines,
        "activations of one micro-batch come on top: learner.micro_tokens and gradient checkpointing bound them",
    ]


def _weights(config: Config, parameters: float) -> str:
    width = WIDTH[config.model.dtype]
    options = config.learner.options
    learner = MASTER + MOMENTS + GRADIENT + (width if width < MASTER else 0)
    reference = width if options.get("kl_coef") else 0
    critic = learner if config.critic.kind == "own" else 0
    engine = WIDTH.get(str(config.engine.options.get("dtype")), width)
    parts = {"weights, gradients and optimizer": learner, "engine": engine, "reference": reference, "critic": critic}
    listed = ", ".join(f"{_gb(parameters * size)} {name}" for name, size in parts.items() if size)
    return f"{parameters / 1e9:.2g}B parameters: {_gb(parameters * sum(parts.values()))} of memory ({listed})"


def _kv(config: Config, shape: dict[str, Any]) -> str:
    heads = shape.get("num_key_value_heads") or shape["num_attention_heads"]
    head = shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"]
    width = WIDTH.get(str(config.engine.options.get("dtype")), WIDTH[config.model.dtype])
    slots = int(config.engine.options.get("slots", 1))
    tokens = int(config.engine.options.get("max_tokens", config.rollout.max_tokens))
    total = 2 * shape["num_hidden_layers"] * heads * head * width * slots * tokens
    return f"{_gb(total)} for the KV of {slots} episodes decoded at once"


def _folder(path: str) -> Path:
    """Where a model lies, if it lies on this machine; `forage:NAME` is one of the package."""
    _, packaged, name = path.partition("forage:")
    return Path(__file__).parent / "assets" / name if packaged else Path(path)


def _shape(folder: Path) -> dict[str, Any] | None:
    file = folder / "config.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def _parameters(path: str, shape: dict[str, Any] | None) -> float | None:
    if shape:
        width, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
        heads = shape["num_attention_heads"]
        head = shape.get("head_dim") or width // heads
        attention = width * head * (2 * heads + 2 * (shape.get("num_key_value_heads") or heads))
        embeddings = shape["vocab_size"] * width * (1 if shape.get("tie_word_embeddings") else 2)
        return float(layers * (attention + 3 * width * inner) + embeddings)
    size = re.search(r"(\d+(?:\.\d+)?)\s*([BM])\b", path, re.IGNORECASE)
    return float(size[1]) * (1e9 if size[2].upper() == "B" else 1e6) if size else None


def _gb(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
