"""What models that read whole texts share: their tokenizers, how much they take, and batches of similar lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from forage.errors import CheckpointError
from forage.models.causal_lm import load_tokenizer

_FROM_PAD = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet")
"""Families that number positions from their padding token's id on, so that they have fewer than they say."""


def text_tokenizer(source: str) -> Any:
    """The tokenizer of a folder, which must really hold one.

    Raises:
        CheckpointError: it does not.
    """
    tokenizer = load_tokenizer(source)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # what transformers makes up without files
        raise CheckpointError(
            f"{source} holds no tokenizer; copy its files (tokenizer.json and others) beside the model"
        )
    return tokenizer


def positions(config: Any) -> int:
    """How many tokens a model has positions for."""
    said = getattr(config, "max_position_embeddings", None) or 1 << 30
    return int(said) - (config.pad_token_id + 1 if config.model_type in _FROM_PAD else 0)


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Rows in batches of similar lengths, longest first, with `budget` tokens at most, padding included.

    A row that is longer than that is alone.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def encodable(text: str) -> str:
    """The text without halves of surrogate pairs, which no tokenizer takes."""
    return text.encode(errors="replace").decode()
