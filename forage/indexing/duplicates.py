"""Passages that say what an earlier one says: found, left out, and written down.

A passage is left out where an earlier one that is kept is equal to it (`exact`), or has at least a given Jaccard
similarity of shingles (`near`). No such pair is missed, and none is taken for one: the result follows from the corpus
and the threshold alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_type_hints

import msgspec

from forage.datasets.jsonl import write_passages
from forage.datasets.lines import read_lines, write_lines
from forage.errors import ConfigError, DataError
from forage.indexing.alike import Match, Progress, equal_passages, near_passages
from forage.indexing.corpus import corpus_files, store_corpus
from forage.indexing.folder import Deduplicated
from forage.indexing.store import PassageStore, StoreWriter
from forage.options import Setting, convert

REMOVED = "duplicates.jsonl"
"""In an index folder: what was left out, and which passage stands for it."""
NEAR = 0.9
Mode = Literal["keep", "exact", "near"]


class Deduplication(msgspec.Struct, frozen=True):
    """Which passages are left out.

    Raises:
        ConfigError: a threshold without `near`, or one that is not above 0 and up to 1.
    """

    duplicates: Mode = "keep"
    """keep, exact (title and text are equal, normalised), or near (alike by their shingles)"""
    near: float | None = None
    """least Jaccard similarity of duplicates; None: .9 where `duplicates` is near"""

    def __post_init__(self) -> None:
        if self.near is not None and self.duplicates != "near":
            raise ConfigError(
                f"near = {self.near} does nothing with duplicates = {self.duplicates!r}; set duplicates=near"
            )
        if self.near is not None and not 0 < self.near <= 1:
            raise ConfigError(f"near = {self.near}, but a similarity is above 0 and at most 1")

    def plan(self) -> str:
        """Half a sentence for a person: the memory it takes at most."""
        if self.duplicates == "exact":
            return "40 bytes a passage to find duplicates"
        rare = 40 * (1 - (self.near or NEAR))
        return f"up to 500 MB, and up to {rare:.0f} bytes a word, to find duplicates"


def deduplication(given: Mapping[str, Any], part: str = "index") -> Deduplication:
    """From options as they came from the command line, or typed.

    Raises:
        ConfigError: see `Deduplication`; or a value of another type.
    """
    hints = get_type_hints(Deduplication)
    settings = {name: value if isinstance(value, Setting) else Setting(value, "") for name, value in given.items()}
    return Deduplication(**{name: convert(f"{part}.{name}", each, hints[name]) for name, each in settings.items()})


class Removed(msgspec.Struct, frozen=True):
    """A passage that was left out, and the one that is kept in its place."""

    removed: str
    """its id"""
    kept: str
    """the id of the other"""
    similarity: float
    title: str
    """of the removed one"""


def find_duplicates(store: PassageStore, chosen: Deduplication, progress: Progress) -> Iterator[Match]:
    """The passages to leave out, in the order of the corpus. All are read before the first is told."""
    if chosen.duplicates == "keep":
        return iter(())
    if chosen.duplicates == "exact":
        return equal_passages(store, progress)
    return near_passages(store, chosen.near or NEAR, progress)


def store_without_duplicates(store: PassageStore, chosen: Deduplication, folder: Path, progress: Progress) -> str:
    """Write the passages that are kept into another folder, and `duplicates.jsonl`; their digest."""
    with StoreWriter(folder) as writer:
        write_lines(folder / REMOVED, _parted(store, find_duplicates(store, chosen, progress), writer))
    return writer.digest


def _parted(store: PassageStore, found: Iterable[Match], writer: StoreWriter) -> Iterator[Removed]:
    """What is left out; passages between are written as it is asked for."""
    done = 0
    for match in found:
        for passage in store.read(done, match.row):
            writer.add(passage)
        gone, done = store[match.row], match.row + 1
        yield Removed(gone.id, store[match.kept].id, round(match.similarity, 4), gone.title)
    for passage in store.read(done):
        writer.add(passage)


def dedupe_corpus(
    corpus: Path,
    out: Path,
    chosen: Deduplication,
    *,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write a corpus without its duplicates, and beside it, as `out`.removed, what was left out (`Removed`).

    The passages lie on disk a second time while they are compared, beside `out`.

    Returns:
        passages: how many are left; removed: how many are not; file and removed_file.

    Raises:
        ConfigError: `out` is a file of the corpus, or what an earlier call left out stands beside it.
        DataError: a passage is not usable.
    """
    tell, removed = progress or _quiet, out.with_name(f"{out.name}.removed")
    if any(out.resolve() == file.resolve() for file in corpus_files(corpus)):
        raise ConfigError(f"{out} is read, and can't be written at the same time: choose another --out")
    if removed.exists():
        raise ConfigError(f"{removed} says what an earlier call left out: remove it, or choose another --out")
    if say:
        say(f"memory: {chosen.plan()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as home:
        every, kept = Path(home, "every"), Path(home, "kept")
        every.mkdir()
        kept.mkdir()
        store_corpus(corpus, every, tell)
        store_without_duplicates(PassageStore(every), chosen, kept, tell)
        counts = {"passages": len(PassageStore(kept)), "removed": len(PassageStore(every)) - len(PassageStore(kept))}
        (kept / REMOVED).replace(removed)
        write_passages(out, PassageStore(kept))
    return counts | {"file": str(out), "removed_file": str(removed)}


def what_was_removed(folder: Path, chosen: Deduplication) -> Deduplicated | None:
    """What index.json says of a folder that `store_without_duplicates` wrote."""
    if chosen.duplicates == "keep":
        return None
    near = (chosen.near or NEAR) if chosen.duplicates == "near" else None
    return Deduplicated(chosen.duplicates, near, sum(1 for _ in read_removed(folder / REMOVED)))


def read_removed(path: Path) -> Iterator[Removed]:
    """What was left out; nothing where there is no such file.

    Raises:
        DataError: a line is not what Forage writes; names file and line.
    """
    for where, row in read_lines(path) if path.exists() else ():
        try:
            yield msgspec.convert(row, Removed)
        except msgspec.ValidationError as error:
            raise DataError(f"{where}: {error}; such files are written by forage index and forage dedupe") from error


def _quiet(what: str, done: int, total: int) -> None:
    del what, done, total
