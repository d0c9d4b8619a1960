"""An index folder describes itself: `index.json` says what it holds, of which corpus, and how it was made."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from forage.errors import IndexFolderError

INDEX = "index.json"
FORMAT = 1
"""Counts up when older folders can't be read any more."""


class Source(msgspec.Struct, frozen=True):
    """A file of the corpus, as it was when it was read."""

    path: str
    bytes: int
    modified_ns: int


class Deduplicated(msgspec.Struct, frozen=True):
    """What was left out of the corpus; `duplicates.jsonl` says for which passage each."""

    duplicates: str
    """exact or near"""
    near: float | None
    """least Jaccard similarity; None where they are exact"""
    removed: int
    """passages left out"""


class IndexInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an index folder says of itself."""

    kind: str
    """bm25, dense or hybrid: who built it, and who opens it"""
    format: int = FORMAT
    passages: int
    """how many there are"""
    corpus: str
    """SHA-256 of the passages in order (`StoreWriter.digest`)"""
    sources: list[Source]
    """the files that were read"""
    options: dict[str, Any]
    """what it was built with, all that queries must share included"""
    versions: dict[str, str]
    """of Python and of the libraries that had a part in it"""
    files: dict[str, int]
    """the bytes of every other file in the folder, by its name"""
    deduplicated: Deduplicated | None = None
    """None where every passage of the corpus is there"""


def read_info(folder: Path) -> IndexInfo:
    """What the folder says of itself, once its files were seen to be there and whole.

    Raises:
        IndexFolderError: it is no index, is of another format, or a file is missing or has another size.
    """
    try:
        data = (folder / INDEX).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IndexFolderError(
            f"{folder} is no index: there is no {INDEX} in it; make one with: forage index CORPUS --out {folder}"
        ) from error
    try:
        found = msgspec.json.decode(data, type=dict[str, Any]).get("format")
        if found != FORMAT:
            raise IndexFolderError(f"{folder} is of format {found!r}, and this Forage reads {FORMAT}: build it again")
        info = msgspec.json.decode(data, type=IndexInfo)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IndexFolderError(f"{folder / INDEX} is broken: {error}. Build the index again") from error
    for name, size in info.files.items():
        _check_file(folder / name, size)
    return info


def write_info(folder: Path, info: IndexInfo) -> None:
    """Write `index.json`; the last step of building."""
    beside = folder / f".{INDEX}.part"
    with beside.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / INDEX)


def sizes(folder: Path) -> dict[str, int]:
    """The bytes of every file of a folder and the folders in it, but for `index.json` and hidden ones."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return {name: size for name, size in names.items() if name != INDEX and not name.startswith(".")}


def versions(*packages: str) -> dict[str, str]:
    """Of Python, Forage and these packages."""
    found = {name: metadata.version(name) for name in ("forage-rl", "numpy", *packages)}
    return {"python": platform.python_version(), **found}


def _check_file(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except FileNotFoundError as error:
        raise IndexFolderError(
            f"{path} is missing: the index is not whole; copy it again, or build it again"
        ) from error
    if found != size:
        what = "cut short" if found < size else "too long"
        raise IndexFolderError(
            f"{path} is {what}: {found:,} bytes, not {size:,}; copy the index again, or build it again"
        )
