"""Query and passage read together by one model, whose output says how well they fit."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from forage.errors import CheckpointError, ConfigError, RetrieverError
from forage.models.causal_lm import DTYPES, first_line, no_progress_bars, resolve
from forage.models.texts import batches, encodable, positions, text_tokenizer
from forage.types import Passage


class CrossEncoder:
    """Any Hugging Face model for sequence classification as a reranker (Nogueira and Cho, arXiv 1901.04085).

    The score is the model's one output; with two (no, yes) it is the log-odds of the second.

    Args:
        path: the model's folder, or its name on the hub.
        max_tokens: of query and passage together, at most what the model takes. A passage is cut to fit, a query never.
        batch_tokens: of a forward pass, padding included.
        title: read passages with their title before the text.
        dtype: what the model computes in.
        device: where; auto: on the GPU where there is one.

    Raises:
        CheckpointError: there is no such model or tokenizer, or it has no head that classifies.
        ConfigError: the head has more than two outputs, or CUDA is asked for and there is none.
    """

    batch_size = 8  # queries a call

    def __init__(
        self,
        *,
        path: str,
        max_tokens: Annotated[int, Meta(ge=1)] = 512,
        batch_tokens: Annotated[int, Meta(ge=1)] = 16_384,
        title: bool = True,
        dtype: Literal["float32", "bfloat16"] = "float32",
        device: Literal["auto", "cpu", "cuda"] = "auto",
    ) -> None:
        source = resolve(path)
        self._device = _device(device)
        self._tokenizer = _tokenizer(source)
        self._model = _load(source, DTYPES[dtype]).to(self._device).eval()
        self._model.config.pad_token_id = self._tokenizer.pad_token_id
        self._batch_tokens, self._title = batch_tokens, title
        self._max_tokens = min(max_tokens, self._tokenizer.model_max_length, positions(self._model.config))
        self._lock = threading.Lock()  # a tokenizer is told anew how to cut with each call

    def score(self, pairs: Sequence[tuple[str, Passage]]) -> list[float]:
        """A score for each pair of a query and a passage.

        Raises:
            RetrieverError: a query alone is longer than what the model takes.
        """
        if not pairs:
            return []
        scores = torch.empty(len(pairs))
        with self._lock, torch.inference_mode():
            fields = self._encode(pairs)
            for rows in batches([len(ids) for ids in fields["input_ids"]], self._batch_tokens):
                logits = self._forward({name: [values[row] for row in rows] for name, values in fields.items()})
                scores[rows] = logits[:, -1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]
        found: list[float] = scores.tolist()
        return found

    def _encode(self, pairs: Sequence[tuple[str, Passage]]) -> dict[str, list[list[int]]]:
        """What the model reads, a list of numbers a pair and field."""
        queries = [encodable(query) for query, _ in pairs]
        self._check_room(queries)
        texts = [encodable(f"{p.title} {p.text}" if self._title else p.text) for _, p in pairs]
        encoded = self._tokenizer(queries, texts, truncation="only_second", max_length=self._max_tokens)
        return {name: encoded[name] for name in encoded}

    def _check_room(self, queries: Sequence[str]) -> None:
        different = list(dict.fromkeys(queries))
        alone = self._tokenizer(different, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        room = self._max_tokens - self._tokenizer.num_special_tokens_to_add(pair=True)
        for query, tokens in zip(different, alone, strict=True):
            if len(tokens) >= room:
                raise RetrieverError(
                    f"the query {query[:80]!r}... has {len(tokens):,} tokens, and the reranker reads fewer than "
                    f"{room:,} of a query"
                )

    def _forward(self, fields: dict[str, list[list[int]]]) -> Tensor:
        """Logits [rows, outputs] of one batch, in float32 on the CPU."""
        fill = {"input_ids": self._tokenizer.pad_token_id, "token_type_ids": self._tokenizer.pad_token_type_id}
        padded = {
            name: pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill.get(name, 0))
            for name, rows in fields.items()
        }
        logits: Tensor = self._model(**{name: tensor.to(self._device) for name, tensor in padded.items()}).logits
        return logits.float().cpu()


def _device(wanted: str) -> str:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("reranker.device = 'cuda', but PyTorch sees no GPU here; set it to cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _tokenizer(source: str) -> Any:
    tokenizer = text_tokenizer(source)
    if tokenizer.pad_token_id is None:
        raise CheckpointError(f"{source}: its tokenizer has no padding token, which a cross-encoder's has")
    return tokenizer


def _load(source: str, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    try:
        with no_progress_bars():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                source, dtype=dtype, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{source} can't be loaded as a cross-encoder. {first_line(error)}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise CheckpointError(
            f"{source} is no cross-encoder: it lacks {', '.join(missing[:3])}. Name a model for sequence classification"
        )
    if model.config.num_labels > 2:
        raise ConfigError(f"{source} has {model.config.num_labels} outputs; a reranker has one, or two (no, yes)")
    return model
