"""A corpus into an engine that runs elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from forage.clients.service import Say, quiet
from forage.indexing.corpus import passages_of
from forage.indexing.encoding import with_options
from forage.options import Setting, arguments, undotted
from forage.registry import find
from forage.types import Passage

_ENCODER, _TABLE = "encoder_", "encoder_options"


class Loader(Protocol):
    """Writes passages into an engine. Found by name in the registry (`loader`); its options are the keyword-only
    parameters of its constructor."""

    async def load(
        self, passages: Iterable[Passage], *, resume: bool, progress: Callable[[int], None], say: Say
    ) -> int:
        """How many passages there were. `progress` is told how many are in, `say` what is waited for."""
        ...


def load_corpus(
    corpus: Path,
    kind: str,
    options: Mapping[str, Any],
    *,
    resume: bool = False,
    progress: Callable[[int], None] = lambda _: None,
    say: Say = quiet,
) -> int:
    """Read a corpus as a stream, and write it into an engine.

    Args:
        corpus: a file of passages, a folder of such files, or an index folder.
        kind: opensearch, qdrant, or `package.module:Loader`.
        options: of that kind, as they came from the command line or typed. `encoder.path` is `path` of its
            encoder_options, and the encoder `transformer` where none is named.
        say: is told what is waited for, where the engine does not answer or is busy.

    Returns:
        How many passages there were.

    Raises:
        ConfigError: an option is unknown, or there is such an index already and it is not to be resumed.
        DataError: a passage is not usable, or refused.
        ServiceError: the engine can't be reached.
    """
    loader: Loader = find("loader", kind)(**arguments("loader", kind, _gathered(options)))
    return asyncio.run(loader.load(passages_of(corpus), resume=resume, progress=progress, say=say))


def _gathered(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those of the encoder in one table; `encoder.path` and `encoder_path` are the same."""
    given = undotted(options)
    own = [name for name in given if name.startswith(_ENCODER) and name != _TABLE]
    if not own:
        return given
    values = {name.removeprefix(_ENCODER): _value(given.pop(name)) for name in own}
    table = _value(given.get(_TABLE, {}))
    whole = with_options(values, table) if isinstance(table, Mapping) else table
    return {"encoder": "transformer"} | given | {_TABLE: whole}


def _value(setting: Any) -> Any:
    return setting.value if isinstance(setting, Setting) else setting
