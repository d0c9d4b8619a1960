"""JSON lines on disk, plain, gzipped (.gz) or with Zstandard (.zst): read one by one, written whole or not at all."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import msgspec
import zstandard

from forage.errors import DataError

MAX_BYTES = 1 << 26
"""Of a line; a longer one is a file of another kind, or a mistake."""


def read_lines(path: Path, *, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:line`, object) of every line that is not blank. No more than one line is in memory.

    Raises:
        DataError: the file is missing, its compression is broken, a line is no JSON object in UTF-8, or is longer
            than `max_bytes`.
    """
    try:
        with ExitStack() as stack:
            read = _open(path, stack).readline
            for number, line in enumerate(iter(lambda: read(max_bytes + 1), b""), start=1):
                if len(line) > max_bytes:
                    raise DataError(
                        f"{path}:{number}: the line is longer than {max_bytes:,} bytes: is a line break missing?"
                    )
                if line.strip():
                    where = f"{path}:{number}"
                    yield where, _object(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, where)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: this is a folder, not a file of JSON lines") from error
    except (EOFError, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise DataError(f"{path}: the compressed file is broken or cut short: {error}") from error


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON object a line. The file appears under its name once it is complete and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    encoder = msgspec.json.Encoder()
    try:
        with partial.open("wb") as file:
            with ExitStack() as stack:
                out = _compressed(file, path.suffix, stack)
                for row in rows:
                    out.write(encoder.encode(row) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _open(path: Path, stack: ExitStack) -> Any:
    file = stack.enter_context(path.open("rb"))
    if path.suffix == ".gz":
        return stack.enter_context(gzip.open(file))
    if path.suffix == ".zst":
        return stack.enter_context(io.BufferedReader(_Zstandard(file), 1 << 20))
    return file


class _Zstandard(io.RawIOBase):
    """What a file of Zstandard frames holds. zstandard's own reader takes a file that is cut short for a whole one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._frame: Any = None  # the one that is being read
        self._ready = memoryview(b"")
        self._ahead = b""  # compressed, behind the end of the last frame

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._ahead or self._file.read(1 << 17)
            self._ahead = b""
            if not data:
                if self._frame:
                    raise zstandard.ZstdError("it ends inside a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._frame.decompress(data))
            if self._frame.eof:
                self._ahead, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def _compressed(file: IO[bytes], suffix: str, stack: ExitStack) -> Any:
    if suffix == ".gz":  # no name and no time inside, so that equal rows are equal bytes
        return stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
    if suffix == ".zst":
        return stack.enter_context(zstandard.ZstdCompressor().stream_writer(file, closefd=False))
    return file


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = msgspec.json.decode(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8: {error}") from error
    except msgspec.DecodeError as error:
        raise DataError(f'{where}: not JSON: {error}. Each line must be one object, such as {{"id": ...}}') from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a line must be a JSON object, not {type(row).__name__}")
    return row
