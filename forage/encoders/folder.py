"""What the files of an encoder's folder say: how it is to be asked, and which weights it has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from forage.encoders.families import FAMILIES, Family, Pooling, family_named, recognised
from forage.errors import CheckpointError, ConfigError
from forage.models.causal_lm import first_line, resolve

_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_SKIPPED = ("onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot")  # of a download
_POOLINGS: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model wants to be asked."""

    family: str
    query_prefix: str
    passage_prefix: str
    pooling: Pooling
    normalise: bool


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """A folder of sentence-transformers, as modules.json describes it."""

    transformer: Path
    """where weights and tokenizer lie"""
    pooling: Pooling
    normalise: bool | None
    """None: it has no such module and does not say that it compares by inner products"""
    prompts: tuple[str, str] | None
    """before queries and passages; None where none is named"""
    max_tokens: int | None


def model_folder(path: str) -> Path:
    """The folder of a model, downloaded where `path` is a name on the hub.

    Raises:
        CheckpointError: it is neither.
    """
    source = resolve(path)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, ignore_patterns=list(_SKIPPED)))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source} is no local folder and could not be had from the Hugging Face hub. Check the name and the "
            f"network, or download it and name the folder. {first_line(error)}"
        ) from error


def sentence_model(folder: Path) -> SentenceModel | None:
    """What sentence-transformers wrote into the folder; None where it did not.

    Raises:
        ConfigError: it has modules that are not a transformer, pooling and normalisation, or another pooling.
    """
    modules = _json(folder / "modules.json")
    if modules is None:
        return None
    places = {module["type"].rpartition(".")[2]: folder / module["path"] for module in modules}
    if odd := places.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise ConfigError(f"{folder} has a module {min(odd)!r} behind its transformer, which Forage does not know")
    transformer = places.get("Transformer", folder)
    said = _json(folder / "config_sentence_transformers.json") or {}
    limits = _json(transformer / "sentence_bert_config.json") or {}
    normalise = True if "Normalize" in places else False if "dot" in str(said.get("similarity_fn_name")) else None
    return SentenceModel(
        transformer, _pooling(places.get("Pooling", folder)), normalise, _prompts(said), limits.get("max_seq_length")
    )


def recipe(path: str, folder: Path, found: SentenceModel | None, family: str | None) -> Recipe:
    """How the model of a folder is to be asked: as `family` says, else as its own files say, else as its name tells.

    Names tell the prefixes of a folder that names no prompts.

    Raises:
        ConfigError: nothing of these says it.
    """
    told = family or recognised(_names(path, folder))
    if told is None and found is None:
        raise ConfigError(
            f"{path} does not say which family of encoders it belongs to: name it with encoder.family= "
            f"({', '.join(FAMILIES)}; plain is the mean of all tokens, scaled to length 1)"
        )
    name = told or "sentence-transformers"
    row = family_named(name)
    if found and not family:
        row = _as_said(row, found, named=told is not None)
    return Recipe(name, row.query_prefix, row.passage_prefix, row.pooling, row.normalise)


def weights_digest(folder: Path) -> str:
    """SHA-256 of the SHA-256 of each file of weights.

    Raises:
        CheckpointError: there are none.
    """
    files = next((found for pattern in _WEIGHTS if (found := sorted(folder.glob(pattern)))), None)
    if not files:
        raise CheckpointError(f"{folder} holds no weights: there is no model.safetensors in it")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _as_said(row: Family, found: SentenceModel, *, named: bool) -> Family:
    normalise = found.normalise if found.normalise is not None else row.normalise if named else True
    row = replace(row, pooling=found.pooling, normalise=normalise)
    return replace(row, query_prefix=found.prompts[0], passage_prefix=found.prompts[1]) if found.prompts else row


def _names(path: str, folder: Path) -> Sequence[str]:
    """What the model may be called: its folder, the hub's name that a cache keeps, and what its config remembers."""
    origin = str((_json(folder / "config.json") or {}).get("_name_or_path", ""))
    cached = [part.rpartition("--")[2] for part in folder.parts if part.startswith("models--")]
    return [Path(path).name, folder.name, Path(origin).name, *cached]


def _pooling(folder: Path) -> Pooling:
    said = _json(folder / "config.json") or {}
    modes = [name.removeprefix("pooling_mode_") for name, on in said.items() if name.startswith("pooling_mode_") and on]
    found = [_POOLINGS.get(mode) for mode in modes]
    if said.get("pooling_mode") in get_args(Pooling):
        found = [said["pooling_mode"]]
    if len(found) != 1 or found[0] is None:
        raise ConfigError(f"{folder} pools by {modes or 'nothing known'}; Forage pools by mean, cls or last")
    if said.get("include_prompt") is False:
        raise ConfigError(f"{folder} leaves the tokens of its prompt out of the pooling, which Forage does not")
    pooling: Pooling = found[0]
    return pooling


def _prompts(said: dict[str, Any]) -> tuple[str, str] | None:
    prompts = said.get("prompts") or {}
    default = prompts.get(said.get("default_prompt_name"), "")
    query = prompts.get("query") or default
    passage = next((prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), default)
    return (query, passage) if query or passage else None


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is broken: {error}. Copy the model again") from error
