"""Corpus to index folder: passages first, then what the kind adds. Built beside, renamed when whole, resumable."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from forage.datasets.lines import MAX_BYTES
from forage.errors import ConfigError, DataError, IndexFolderError
from forage.indexing.corpus import corpus_sources, store_corpus
from forage.indexing.duplicates import Deduplication, deduplication, store_without_duplicates, what_was_removed
from forage.indexing.folder import INDEX, IndexInfo, Source, sizes, versions, write_info
from forage.indexing.store import PassageStore
from forage.options import Setting, arguments, convert, undotted
from forage.registry import find
from forage.toml import literal

BEGUN, STORED, LOCK, EVERY = ".begun.json", ".stored.json", ".lock", ".every"
Progress = Callable[[str, int, int], None]
"""(what is done, how many, of how many; 0 where that is not known)"""


class Builder(Protocol):
    """What a kind of index adds to the passages. Found by its kind in the registry (`index`); its options are the
    keyword-only parameters of its constructor.
    """

    packages: tuple[str, ...]
    """libraries whose versions are noted in index.json"""

    def plan(self) -> str:
        """Half a sentence for a person before it starts: the memory it will take at most."""
        ...

    def build(self, store: PassageStore, folder: Path, progress: Progress) -> dict[str, Any]:
        """Write files into the folder, their names beginning with the kind; hidden ones are deleted at the end.

        Called again after an interruption, it finds its files as they were left: one that is renamed into its place
        when it is whole needs no further care. Returns what queries must know (the options of index.json).
        """
        ...


class _Begun(msgspec.Struct):
    """What an unfinished folder is being made from; resuming with anything else is refused."""

    kind: str
    options: dict[str, Any]
    sources: list[Source]
    unique: Deduplication


def build_index(
    corpus: Path,
    kind: str,
    out: Path,
    *,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> IndexInfo:
    """Build an index of a corpus in the folder `out`, which appears once it is whole; until then it is `out`.partial.

    Args:
        corpus: a file of passages, or a folder of such files (see `read_passages`).
        kind: bm25, dense, hybrid, or `package.module:Builder`.
        out: the folder; it must not exist yet.
        options: of the kind (keyword-only parameters of its builder), as they came from the command line or typed.
            `encoder.path` is the option `encoder_path`. Those of every kind are `max_line_mb` (64): longer lines are
            refused; and `duplicates` and `near` (see `Deduplication`).
        resume: go on with what an interrupted call left.
        progress: is told how far it is.
        say: is told what memory will be needed, before anything is read.

    Raises:
        ConfigError: the kind or an option is unknown.
        DataError: a passage is not usable.
        IndexFolderError: there is an index already, an unfinished one that is not to be resumed, or one that was begun
            with other options or another corpus.
    """
    given = undotted(options or {})
    max_bytes = _max_line(given.pop("max_line_mb", MAX_BYTES >> 20))
    unique = deduplication({name: given.pop(name) for name in ("duplicates", "near") if name in given})
    chosen = arguments("index", kind, given, shared=("max_line_mb", "duplicates", "near"))
    builder: Builder = find("index", kind)(**chosen)
    begun = _Begun(kind, msgspec.to_builtins(chosen, enc_hook=str), corpus_sources(corpus), unique)
    if (out / INDEX).exists():
        raise IndexFolderError(f"there is an index in {out} already; remove it, or choose another --out")
    if say:
        said = f"; before that, {unique.plan()}" if unique.duplicates != "keep" else ""
        say(f"memory: {builder.plan()}, and 16 bytes a passage{said}")
    with _work_folder(out, begun, resume) as work:
        digest = _store(corpus, max_bytes, unique, work, progress or _quiet)
        store = PassageStore(work)
        facts = builder.build(store, work, progress or _quiet)
        info = _finish(work, begun, facts, digest, len(store), builder.packages)
    work.replace(out)
    return info


def command_line_options(words: list[str]) -> dict[str, Setting]:
    """`key=value` words as options for `build_index`.

    Raises:
        ConfigError: a word is no key=value.
    """
    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key or not equals:
            raise ConfigError(f"{word!r}: expected key=value, such as k1=0.9")
        found[key] = Setting(literal(text), "on the command line", text)
    return found


@contextmanager
def _work_folder(out: Path, begun: _Begun, resume: bool) -> Iterator[Path]:
    """`out`.partial, locked, new or as it was left."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise IndexFolderError(f"{out} exists and is no index; choose another --out")
    work = out.with_name(f"{out.name}.partial")
    left = work.exists()
    if left and not resume:
        raise IndexFolderError(f"{work} is an unfinished index: go on with --resume, or remove it")
    work.mkdir(parents=True, exist_ok=True)
    with (work / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise IndexFolderError(f"another process is building in {work}") from error
        _check_begun(work, begun)
        yield work


def _check_begun(work: Path, begun: _Begun) -> None:
    path = work / BEGUN
    if path.exists():
        try:
            before = msgspec.json.decode(path.read_bytes(), type=_Begun)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IndexFolderError(
                f"{work} was begun by another version of Forage, or is broken: remove the folder"
            ) from error
        if changed := [name for name in begun.__struct_fields__ if getattr(before, name) != getattr(begun, name)]:
            raise IndexFolderError(
                f"{work} was begun with other {' and '.join(changed)}: give the same again, or remove the folder"
            )
    else:
        _write(path, begun)


def _max_line(megabytes: Any) -> int:
    setting = megabytes if isinstance(megabytes, Setting) else Setting(megabytes, "")
    found: int = convert("index.max_line_mb", setting, int)
    if found < 1:
        raise ConfigError(f"index.max_line_mb = {found}, but it must be at least 1")
    return found << 20


def _store(corpus: Path, max_bytes: int, unique: Deduplication, work: Path, progress: Progress) -> str:
    """The passages into the folder, unless they are there, without those that are left out; their digest."""
    marker = work / STORED
    if marker.exists():
        return msgspec.json.decode(marker.read_bytes(), type=str)
    if unique.duplicates == "keep":
        digest = store_corpus(corpus, work, progress, max_bytes=max_bytes)
    else:
        every = work / EVERY
        every.mkdir(exist_ok=True)
        if not (every / STORED).exists():
            _write(every / STORED, store_corpus(corpus, every, progress, max_bytes=max_bytes))
        digest = store_without_duplicates(PassageStore(every), unique, work, progress)
    _write(marker, digest)
    shutil.rmtree(work / EVERY, ignore_errors=True)
    return digest


def _finish(
    work: Path, begun: _Begun, facts: dict[str, Any], digest: str, passages: int, packages: tuple[str, ...]
) -> IndexInfo:
    for path in work.glob(".*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    info = IndexInfo(
        kind=begun.kind,
        passages=passages,
        corpus=digest,
        sources=begun.sources,
        options=facts,
        versions=versions(*packages),
        files=sizes(work),
        deduplicated=what_was_removed(work, begun.unique),
    )
    if not passages:
        raise DataError("the corpus is empty")
    write_info(work, info)
    return info


def _write(path: Path, value: Any) -> None:
    beside = path.with_name(f"{path.name}.part")
    with beside.open("wb") as file:
        file.write(msgspec.json.encode(value))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _quiet(what: str, done: int, total: int) -> None:
    del what, done, total
