"""An index folder as a search engine, of whatever kind it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from forage.errors import ConfigError, IndexFolderError
from forage.indexing.duplicates import REMOVED, read_removed
from forage.indexing.folder import IndexInfo, read_info
from forage.indexing.store import PassageStore
from forage.interfaces import Index
from forage.options import arguments
from forage.registry import find
from forage.types import Passage

_COMPARED = 1000
NOTHING: Mapping[str, Any] = MappingProxyType({})


def open_index(folder: Path, **options: Any) -> Index:
    """Open an index folder, by the kind in its index.json; its files are mapped, not read.

    The class is `reader` of the registry, and is given the folder, its `IndexInfo`, its `PassageStore` and the options
    (keyword-only parameters of its constructor), typed and checked.

    Raises:
        IndexFolderError: it is no index, is not whole, or is of a format or kind that this Forage does not read.
        ConfigError: the kind has no such option, or it is of another type.
    """
    info = read_info(folder)
    try:
        reader = find("reader", info.kind)
    except ConfigError as error:
        raise IndexFolderError(
            f"{folder} is an index of the kind {info.kind!r}, which can't be opened: {error}"
        ) from error
    opened: Index = reader(folder, info, _store(folder, info), **arguments("reader", info.kind, options))
    return opened


class IndexedRetriever:
    """Searches an index folder (`forage index`).

    Where the data set brings passages of its own, the first thousand are compared with those of the index.

    Args:
        path: the folder.
        options: of the index's kind, such as `{fusion = "weighted"}` of a hybrid one.

    Raises:
        IndexFolderError: it can't be opened, or is of another corpus.
        ConfigError: the kind has no such option, or it is of another type.
    """

    def __init__(self, passages: Iterable[Passage] = (), *, path: Path, options: Mapping[str, Any] = NOTHING) -> None:
        info = read_info(path)
        _check_same(PassageStore(path), passages, path)
        self._index = open_index(path, **options)
        self._passages = info.passages

    def __len__(self) -> int:
        return self._passages

    def lookup(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best k passages of each query, best first."""
        return self._index.lookup(queries, k)


def _store(folder: Path, info: IndexInfo) -> PassageStore:
    store = PassageStore(folder)
    if len(store) != info.passages:
        raise IndexFolderError(f"{folder} holds {len(store):,} passages, not {info.passages:,}: build it again")
    return store


def _check_same(store: PassageStore, passages: Iterable[Passage], folder: Path) -> None:
    """Passages that were left out as duplicates are passed over; they are written down in the corpus' order."""
    removed = (each.removed for each in read_removed(folder / REMOVED))
    row, left_out = 0, next(removed, None)
    for passage in islice(passages, _COMPARED):
        if passage.id == left_out:
            left_out = next(removed, None)
            continue
        held = store[row] if row < len(store) else None
        if held is None or (held.id, held.title, held.text) != (passage.id, passage.title, passage.text):
            raise IndexFolderError(
                f"{folder} is of another corpus: its passage {row} is not {passage.id!r}. "
                "Build an index of data.corpus, or leave out data.corpus"
            )
        row += 1
