"""An encoder by its name, and what it gives, checked; written into an index so that queries get the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from forage.errors import CheckpointError, ConfigError, DataError, IndexFolderError
from forage.interfaces import Encoder
from forage.options import arguments, signature
from forage.registry import find
from forage.types import Passage

Vectors = NDArray[np.float32]


class Encoding(msgspec.Struct, frozen=True, kw_only=True):
    """What an index keeps of its encoder."""

    kind: str
    """name in the registry, or `package.module:Class`"""
    options: dict[str, Any]
    """what it is made with, such as where the model lies; it may be made with others"""
    settings: dict[str, Any]
    """what its vectors depend on; an encoder with other settings is refused"""
    dimensions: int
    title: bool
    """whether passages are read with their title before the text"""

    def text(self, passage: Passage) -> str:
        """What is encoded of a passage."""
        return f"{passage.title} {passage.text}".strip() if self.title else passage.text


class NamedEncoder:
    """An encoder whose name stands in every error.

    Args:
        kind: name in the registry, or `package.module:Class`.
        options: of that kind.

    Raises:
        ConfigError: the kind or an option is unknown.
    """

    def __init__(self, kind: str, options: Mapping[str, Any]) -> None:
        chosen = arguments("encoder", kind, options)
        self._encoder: Encoder = find("encoder", kind)(**chosen)
        self._kind = kind
        self._options = msgspec.to_builtins(dict(getattr(self._encoder, "options", options)), enc_hook=str)
        self.settings: dict[str, Any] = msgspec.to_builtins(dict(getattr(self._encoder, "settings", {})))
        self.dimensions = int(self._encoder.dimensions)
        self.memory = int(getattr(self._encoder, "memory", 0))
        self.name = f"{kind} ({self._options['path']})" if "path" in self._options else kind

    def encoding(self, *, title: bool) -> Encoding:
        """What an index keeps of it."""
        return Encoding(
            kind=self._kind, options=self._options, settings=self.settings, dimensions=self.dimensions, title=title
        )

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of queries [N, dimensions].

        Raises:
            DataError: they have another shape, or are not finite.
        """
        return self._checked(self._encoder.encode_queries(texts), len(texts), "queries")

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages [N, dimensions].

        Raises:
            DataError: they have another shape, or are not finite.
        """
        return self._checked(self._encoder.encode_passages(texts), len(texts), "passages")

    def _checked(self, given: Any, count: int, what: str) -> Vectors:
        vectors = np.asarray(given, np.float32)
        if vectors.shape != (count, self.dimensions):
            shape = [count, self.dimensions]
            raise DataError(
                f"the encoder {self.name} gave vectors {list(vectors.shape)} for {count} {what}, not {shape}"
            )
        if not np.isfinite(vectors).all():
            raise DataError(f"the encoder {self.name} gave {what} a vector with a number that is not finite")
        return vectors


def with_options(named: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """An encoder's options of those with a name of their own (`encoder_path`) and those in a table.

    Raises:
        ConfigError: one is given twice.
    """
    if twice := next((name for name in named if name in options), ""):
        raise ConfigError(f"both encoder_{twice} and encoder_options.{twice} are given: leave one of them out")
    return {**named, **options}


def open_encoder(
    kept: Encoding, folder: Path | str, changed: Mapping[str, Any], *, setting: str = "encoder_path"
) -> NamedEncoder:
    """The encoder of an index.

    Args:
        kept: what the index says of it.
        folder: of the index, or its name elsewhere.
        changed: options that are given anew, such as where the model lies now.
        setting: what this is said with, for messages.

    Raises:
        IndexFolderError: it is another one, or its model is gone.
        ConfigError: an option is unknown.
    """
    known = signature("encoder", kept.kind)
    settings = {name: value for name, value in kept.settings.items() if name in known}
    try:
        encoder = NamedEncoder(kept.kind, {**kept.options, **settings, **changed})
    except CheckpointError as error:
        raise IndexFolderError(
            f"the encoder of {folder} can't be opened: {error}. Where the model has moved, say so with {setting}="
        ) from error
    if encoder.dimensions != kept.dimensions:
        raise IndexFolderError(
            f"{folder} holds vectors of {kept.dimensions} dimensions, and the encoder {encoder.name} gives "
            f"{encoder.dimensions}: name the encoder that it was built with ({setting}), or build it again"
        )
    if other := [name for name, value in kept.settings.items() if encoder.settings.get(name) != value]:
        raise IndexFolderError(
            f"{folder} was built with another encoder than {encoder.name}: its {' and '.join(other)} differ. Name "
            f"the one that it was built with ({setting}), or build it again"
        )
    return encoder
