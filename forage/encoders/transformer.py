"""Any text encoder of Hugging Face: tokens, hidden states, one vector a text."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor

from forage.encoders.families import Pooling
from forage.encoders.folder import SentenceModel, model_folder, recipe, sentence_model, weights_digest
from forage.errors import CheckpointError, ConfigError
from forage.models.causal_lm import DTYPES, first_line, no_progress_bars
from forage.models.texts import batches, encodable, positions, text_tokenizer

_LONGEST = 512  # tokens, unless more are asked for
_STEP = 16  # lengths are multiples of it: few shapes of products, each of which is prepared once
_BUDGET = {"cpu": 2048, "cuda": 32_768}  # tokens of a forward pass; on a CPU larger ones leave the cache

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]
_DTYPES = {**DTYPES, "float16": torch.float16}


class TransformerEncoder:
    """Any Hugging Face text encoder. How it wants to be asked comes from its folder, its name, or `family`.

    Args:
        path: the model's folder, or its name on the hub.
        family: e5, bge, bge-zh, bge-m3, contriever, gte, gte-v1.5, sentence-transformers, or plain; where it is not
            given, what the folder's sentence-transformers files say, and what the model's name tells.
        query_prefix: before every query, in place of the family's.
        passage_prefix: before every passage, in place of the family's.
        pooling: mean, cls or last, in place of the family's.
        normalise: scale vectors to length 1, in place of what the family does.
        max_tokens: of a text, prefix included; longer ones are cut. At most, and by default, what the model takes (512
            where it would take more).
        dtype: what the model computes in; auto: bfloat16 where the device multiplies it in hardware, else float32.
        device: where; auto: on the GPU where there is one.
        batch_tokens: of a forward pass, padding included; 2,048 on a CPU and 32,768 on a GPU where it is not given.

    Raises:
        CheckpointError: there is no such model or tokenizer.
        ConfigError: nothing says how it wants to be asked, or it is no encoder of texts.
    """

    def __init__(
        self,
        *,
        path: str,
        family: str | None = None,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        pooling: Pooling | None = None,
        normalise: bool | None = None,
        max_tokens: Annotated[int, Meta(ge=3)] | None = None,
        dtype: Dtype = "auto",
        device: Device = "auto",
        batch_tokens: Annotated[int, Meta(ge=1)] | None = None,
    ) -> None:
        folder = model_folder(path)
        found = sentence_model(folder)
        said = recipe(path, folder, found, family)
        source = found.transformer if found else folder
        self._device = _device(device)
        dtype = _dtype(self._device) if dtype == "auto" else dtype
        self._tokenizer = _tokenizer(source)
        self._model = _model(source, _DTYPES[dtype]).to(self._device).eval()
        self._batch_tokens = batch_tokens or _BUDGET[self._device.type]
        self._lock = threading.Lock()  # a tokenizer is told anew how to cut with each call
        self._most = min(positions(self._model.config), int(self._tokenizer.model_max_length))
        self.dimensions = int(self._model.config.hidden_size)
        self.settings: Mapping[str, Any] = {
            "family": said.family,
            "query_prefix": said.query_prefix if query_prefix is None else query_prefix,
            "passage_prefix": said.passage_prefix if passage_prefix is None else passage_prefix,
            "pooling": pooling or said.pooling,
            "normalise": said.normalise if normalise is None else normalise,
            "max_tokens": self._room(max_tokens, found),
            "weights": weights_digest(source),
        }
        self.options: Mapping[str, Any] = {"path": _kept(path), "dtype": dtype}

    @property
    def memory(self) -> int:
        """Bytes that it takes: weights, and the activations of a forward pass."""
        weights = sum(p.numel() * p.element_size() for p in self._model.parameters())
        inner = getattr(self._model.config, "intermediate_size", 4 * self.dimensions)
        return int(weights + self._batch_tokens * (12 * self.dimensions + 4 * inner) * 4)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries [N, dimensions]."""
        return self._encode(texts, self.settings["query_prefix"])

    def encode_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of passages [N, dimensions]."""
        return self._encode(texts, self.settings["passage_prefix"])

    def _encode(self, texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
        vectors = torch.empty(len(texts), self.dimensions)
        with self._lock, torch.inference_mode():
            tokens = self._tokens([prefix + encodable(text) for text in texts])
            for rows in batches([self._padded(len(each)) for each in tokens], self._batch_tokens):
                vectors[rows] = self._forward([tokens[row] for row in rows])
        found: NDArray[np.float32] = vectors.numpy()
        return found

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self._tokenizer(
            texts, truncation=True, max_length=self.settings["max_tokens"], return_attention_mask=False
        )
        tokens: list[list[int]] = encoded["input_ids"]
        return tokens

    def _forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Vectors [rows, dimensions] of one batch, in float32 on the CPU."""
        lengths_B = torch.tensor([max(1, len(row)) for row in rows], device=self._device)
        tokens_BT = torch.full((len(rows), self._padded(int(lengths_B.max()))), self._tokenizer.pad_token_id)
        for place, row in enumerate(rows):
            tokens_BT[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask_BT = torch.arange(tokens_BT.shape[1], device=self._device) < lengths_B[:, None]
        tokens_BT = tokens_BT.to(self._device)
        hidden = self._model(input_ids=tokens_BT, attention_mask=mask_BT.long()).last_hidden_state
        vectors = pooled(hidden, mask_BT, self.settings["pooling"])
        if self.settings["normalise"]:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors.cpu()

    def _padded(self, length: int) -> int:
        return min(-(-length // _STEP) * _STEP, self._most)

    def _room(self, wanted: int | None, found: SentenceModel | None) -> int:
        if wanted is not None and wanted > self._most:
            raise ConfigError(f"encoder.max_tokens = {wanted}, but the model takes at most {self._most}")
        return int(wanted or min(self._most, (found and found.max_tokens) or _LONGEST))


def pooled(hidden_BTD: Tensor, mask_BT: Tensor, pooling: Pooling) -> Tensor:
    """One vector a row, in float32, [B, D]: the mean over tokens that are no padding, the first token's, or the last's.

    Rows are padded on the right.
    """
    if pooling == "cls":
        return hidden_BTD[:, 0].float()
    lengths_B = mask_BT.sum(1)
    if pooling == "last":
        return hidden_BTD[torch.arange(len(hidden_BTD), device=hidden_BTD.device), lengths_B - 1].float()
    return (hidden_BTD.float() * mask_BT[..., None]).sum(1) / lengths_B[:, None]


def _device(wanted: Device) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("encoder.device = 'cuda', but PyTorch sees no GPU here; set it to cpu or auto")
    name = ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
    return torch.device(name)


def _dtype(device: torch.device) -> Dtype:
    """bfloat16 where there are units for it: 2.5 times as fast as float32 with AMX, vectors at a cosine of .9999."""
    able = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_amx_tile_supported()
    return "bfloat16" if able else "float32"


def _tokenizer(source: Path) -> Any:
    tokenizer = text_tokenizer(str(source))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise CheckpointError(f"{source}: its tokenizer has neither a padding nor an end token")
    return tokenizer


def _model(source: Path, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModel

    try:
        with no_progress_bars():
            model, report = AutoModel.from_pretrained(source, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{source} can't be loaded as a text encoder. {first_line(error)}") from error
    if model.config.is_encoder_decoder:
        raise ConfigError(f"{source} is an encoder with a decoder, and no text encoder")
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith("pooler.")):
        raise CheckpointError(f"{source} lacks {len(missing)} weights, among them {missing[0]}")
    return model


def _kept(path: str) -> str:
    """The path as it can be found again from anywhere."""
    return str(Path(path).expanduser().resolve()) if Path(path).expanduser().exists() else path
