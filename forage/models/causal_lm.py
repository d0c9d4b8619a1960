"""Any Hugging Face causal language model, with its tokenizer, as a policy."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forage.errors import CheckpointError, ConfigError

PACKAGED = "forage:"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(slots=True)
class Policy:
    """A language model that is trained, and what its tokenizer wants.

    `model` always holds float32 weights; `dtype` is what a learner computes in. `bos_token_id` is set only where the
    family's own tokenizer puts it before a text (Llama 3 does; Qwen and GPT-2 name one and don't). A rendered
    `chat_template` holds its own.
    """

    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    dtype: torch.dtype
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    chat_template: str | None

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = self.model.device
        return device

    def export(self, folder: Path, *, dtype: str = "float32") -> None:
        """Write a plain Hugging Face folder (weights of `dtype`, config, tokenizer): complete, or not at all.

        Raises:
            CheckpointError: the folder holds something else, or the disk is full.
        """
        _refuse_to_overwrite(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            self.write(beside, dtype=dtype)
            beside.chmod(0o755)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        except OSError as error:
            raise CheckpointError(
                f"{folder} could not be written: {error}. Free some space and export again"
            ) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def write(self, folder: Path, *, dtype: str = "float32") -> None:
        """Write the files of a Hugging Face folder into an existing one."""
        model = self.model if dtype == "float32" else copy.deepcopy(self.model).to(DTYPES[dtype])
        with no_progress_bars():
            model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def load_policy(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: str = "float32",
    gradient_checkpointing: bool = False,
    init_from: str | Path = "",
) -> Policy:
    """Load a causal language model and its tokenizer.

    Args:
        path: a local Hugging Face folder, a hub name, a run's folder or one of its checkpoints, or `forage:tiny`
            (packaged).
        device: where the weights go.
        dtype: what a learner computes in, "float32" or "bfloat16"; weights and optimizer stay float32.
        gradient_checkpointing: keep only the layers' inputs for the backward pass, and compute the rest again.
        init_from: take the weights (not the tokenizer) from this folder instead; same shapes.

    Raises:
        CheckpointError: nothing usable lies there, the files are truncated or of another shape, or the hub can't be
            reached.
        ConfigError: `dtype` is unknown.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"model.dtype = {dtype!r} is unknown; known: {', '.join(DTYPES)}")
    source = resolve(path)
    model = _load_model(source).to(device)
    if init_from:
        load_weights(model, Path(resolve(init_from)))
    _silence_dropout(model)
    if gradient_checkpointing:
        checkpoint_gradients(model)
    return as_policy(model, load_tokenizer(source), dtype=dtype)


def as_policy(model: Any, tokenizer: Any, *, dtype: str = "float32") -> Policy:
    """A policy of a model (float32 weights) and a tokenizer that are already there."""
    return Policy(
        model=model,
        tokenizer=tokenizer,
        dtype=DTYPES[dtype],
        bos_token_id=_bos(tokenizer),
        eos_token_ids=_eos(model, tokenizer),
        chat_template=getattr(tokenizer, "chat_template", None),
    )


def resolve(path: str | Path) -> str:
    """The folder or hub name that `path` means.

    Raises:
        CheckpointError: it reads like a local path, and no model lies there.
    """
    name = str(path)
    if name.startswith(PACKAGED):
        name = str(Path(__file__).parents[1] / "assets" / name.removeprefix(PACKAGED))
    folder = _newest(Path(name).expanduser())
    if (folder / "model" / "config.json").is_file():
        return str(folder / "model")
    if (folder / "config.json").is_file():
        return str(folder)
    if folder.is_dir():
        raise CheckpointError(f"{folder} holds no model: there is no config.json in it. Name the folder that has one")
    if folder.exists():
        raise CheckpointError(f"{folder} is a file; name the model's folder")
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or os.sep not in name:
        raise CheckpointError(f"{name} does not exist. Name a local folder, or a model of the hub as owner/name")
    return name


def _newest(folder: Path) -> Path:
    """The last checkpoint of a run's folder; any other folder itself."""
    steps = sorted(folder.glob("checkpoints/step-*"))
    return steps[-1] if steps else folder


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a Hugging Face folder into `model`, in place, bit for bit.

    Raises:
        CheckpointError: a file is missing or truncated, or names or shapes differ from the model's.
    """
    wanted = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in read_weights(folder):
            parameter = wanted.pop(name, None)
            if parameter is None:
                continue  # a tied copy, or a buffer
            if parameter.shape != tensor.shape:
                shapes = f"{list(tensor.shape)}, the model has {list(parameter.shape)}"
                raise CheckpointError(f"{folder}: {name} has shape {shapes}. It is a checkpoint of another model")
            parameter.copy_(tensor)
    if wanted:
        raise CheckpointError(f"{folder} lacks {len(wanted)} weights, among them {next(iter(wanted))}")


def read_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a Hugging Face folder's safetensors, one at a time.

    Raises:
        CheckpointError: there are none, or a file is truncated.
    """
    from safetensors import SafetensorError, safe_open

    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    yield name, tensors.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is truncated or damaged ({error}). Copy or download it again") from error


def _weight_files(folder: Path) -> Sequence[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    raise CheckpointError(f"{folder} holds no weights: there is no model.safetensors in it")


def _load_model(source: str) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        with no_progress_bars():
            model, report = AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True
            )
    except SafetensorError as error:
        raise CheckpointError(f"{source}: the weights are truncated or damaged ({error}). Copy them again") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(_explain(source, error)) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise CheckpointError(f"{source} lacks {len(missing)} weights, among them {missing[0]}")
    return model


def load_tokenizer(source: str) -> Any:
    """The tokenizer of a folder or hub name.

    Raises:
        CheckpointError: it can't be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source}: its tokenizer can't be read. {first_line(error)}") from error


def _explain(source: str, error: Exception) -> str:
    if Path(source).is_dir():
        return f"{source} can't be loaded as a causal language model. {first_line(error)}"
    return (
        f"{source} is no local folder and could not be had from the Hugging Face hub. Check the name and the network, "
        f"log in if the model is gated, or download it and name the folder. {first_line(error)}"
    )


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Loading and saving a local model print nothing (a download has bars of its own)."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    """What a library says, without what follows, in brackets."""
    return f"({type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''})"


def _bos(tokenizer: Any) -> int | None:
    """The BOS token, if the tokenizer itself begins a text with it."""
    if tokenizer.bos_token_id is None:
        return None
    first = tokenizer("a", add_special_tokens=True)["input_ids"][0]
    return int(first) if first == tokenizer.bos_token_id else None


def _eos(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every token that ends a text: the generation config's (a number or several), the model's, the tokenizer's."""
    generation = getattr(model, "generation_config", None)
    named = (getattr(generation, "eos_token_id", None), model.config.eos_token_id, tokenizer.eos_token_id)
    ids = [i for value in named if value is not None for i in (value if isinstance(value, list) else [value])]
    return tuple(dict.fromkeys(int(i) for i in ids))


def checkpoint_gradients(model: Any) -> None:
    """Keep only the layers' inputs for the backward pass, and compute the rest again."""
    model.train()  # without it transformers checkpoints nothing
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})  # the first is the newer name


def _silence_dropout(model: nn.Module) -> None:
    """No dropout even in train mode: under it the ratio of a policy to itself would not be 1."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def _refuse_to_overwrite(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and ((folder / "config.json").is_file() or not any(folder.iterdir()))):
        raise CheckpointError(f"{folder} exists and is no model folder. Remove it, or name another")
