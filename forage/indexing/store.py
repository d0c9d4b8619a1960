"""The passages of an index on disk: their records one after another, and where each begins. Read by memory map."""

from __future__ import annotations

import hashlib
import mmap
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np

from forage.errors import DataError, IndexFolderError
from forage.types import Passage

RECORDS, OFFSETS = "passages.bin", "passages.offsets.npy"
_BLOCK = 1 << 20  # bytes; what is read or written at once
_Record = tuple[str, str, str]  # id, title, text, in MessagePack


class StoreWriter:
    """Writes passages into a folder, one by one; `with` closes it. Holds 8 bytes a passage in memory.

    Args:
        folder: an existing folder; a store that lies in it is replaced.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / RECORDS).open("wb", buffering=_BLOCK)
        self._ends = array("q", [0])
        self._encoder = msgspec.msgpack.Encoder()
        self._sha256 = hashlib.sha256()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, passage: Passage) -> None:
        """Append a passage; its score is not kept.

        Raises:
            DataError: it holds what is no text in UTF-8.
        """
        try:
            record = self._encoder.encode((passage.id, passage.title, passage.text))
        except UnicodeEncodeError as error:
            raise DataError(f"the passage {passage.id!r} is no valid Unicode: {error}") from error
        self._file.write(record)
        self._sha256.update(record)
        self._ends.append(self._ends[-1] + len(record))

    @property
    def digest(self) -> str:
        """SHA-256 of all passages so far: their ids, titles and texts in order."""
        return self._sha256.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        if kind is None:
            np.save(self._folder / OFFSETS, np.frombuffer(self._ends, np.int64))


class PassageStore:
    """Passages by row, as they were written. Only those that are asked for are read from disk.

    Raises:
        IndexFolderError: the files are missing, cut short, or don't belong together.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORDS
        try:
            self._offsets = np.load(folder / OFFSETS, mmap_mode="r")
            with self._path.open("rb") as file:
                size = self._path.stat().st_size
                self._data: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except (FileNotFoundError, ValueError, EOFError) as error:
            raise IndexFolderError(
                f"the passages of {folder} can't be read ({error}): build the index again"
            ) from error
        if self._offsets.dtype != np.int64 or self._offsets.ndim != 1 or int(self._offsets[-1]) != size:
            raise IndexFolderError(f"{self._path} and {OFFSETS} don't belong together: build the index again")
        self._decoder = msgspec.msgpack.Decoder(_Record)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def size(self) -> int:
        """Bytes of all records."""
        return int(self._offsets[-1])

    def __getitem__(self, row: int) -> Passage:
        """The passage of that row, 0 and up, with score 0."""
        return self.scored(row, 0.0)

    def scored(self, row: int, score: float) -> Passage:
        """The passage of that row with a score.

        Raises:
            IndexError: there is no such row (negative ones count as that).
            IndexFolderError: its record is broken.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} passages")
        start, end = self._offsets[row : row + 2].tolist()
        return Passage(*self._record(self._data[start:end]), score)

    def __iter__(self) -> Iterator[Passage]:
        return self.read(0)

    def read(self, start: int, end: int | None = None) -> Iterator[Passage]:
        """The passages of rows `start` to `end` in order, faster than one by one, without mapping the texts."""
        end = len(self) if end is None else min(end, len(self))
        start = min(start, end)
        with self._path.open("rb", buffering=_BLOCK) as file:
            file.seek(int(self._offsets[start]))
            for low in range(start, end, 65_536):
                lengths = np.diff(self._offsets[low : min(low + 65_536, end) + 1]).tolist()
                for length in lengths:
                    yield Passage(*self._record(file.read(length)), 0.0)

    def digest(self) -> str:
        """SHA-256 of all passages, read from disk; `IndexInfo.corpus` says what it was."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _record(self, data: bytes) -> _Record:
        try:
            record: _Record = self._decoder.decode(data)
        except msgspec.DecodeError as error:
            raise IndexFolderError(f"{self._path} is broken: {error}. Build the index again") from error
        return record
