"""A corpus into an engine that runs elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from forage.indexing.corpus import read_passages
from forage.options import arguments
from forage.registry import find
from forage.types import Passage


class Loader(Protocol):
    """Writes passages into an engine. Found by name in the registry (`loader`); its options are the keyword-only
    parameters of its constructor."""

    async def load(self, passages: Iterable[Passage], *, resume: bool, progress: Callable[[int], None]) -> int: ...


def load_corpus(
    corpus: Path,
    kind: str,
    options: Mapping[str, Any],
    *,
    resume: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Read a corpus as a stream, and write it into an engine.

    Args:
        kind: opensearch, qdrant, or `package.module:Loader`.
        options: of that kind, as they came from the command line or typed.

    Returns:
        How many passages there were.

    Raises:
        ConfigError: an option is unknown, or there is such an index already and it is not to be resumed.
        DataError: a passage is not usable, or refused.
        ServiceError: the engine can't be reached.
    """
    loader: Loader = find("loader", kind)(**arguments("loader", kind, options))
    return asyncio.run(loader.load(read_passages(corpus), resume=resume, progress=progress))
