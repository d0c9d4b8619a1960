"""metrics.jsonl: one object a step, on the disk before the run goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO


class JsonlTracker:
    """Writes `{"step": n, "group/name": value, ...}` lines; what is logged for the last step again joins its line.

    Each line is synced when it is written, so that a checkpoint never knows more than the metrics do.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        self._row: dict[str, Any] = {}
        self._start = self._end = 0
        for start, end, row in _rows(self._file):
            self._start, self._end, self._row = start, end, row

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add a step's metrics. Values that are not finite are written as null."""
        same = self._row.get("step") == step
        self._row = {**(self._row if same else {"step": step}), **{name: _plain(v) for name, v in metrics.items()}}
        self._start = self._start if same else self._end
        line = json.dumps(self._row, allow_nan=False).encode() + b"\n"
        self._file.seek(self._start)
        self._file.write(line)
        self._file.truncate()
        _sync(self._file)
        self._end = self._start + len(line)

    def close(self) -> None:
        self._file.close()


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Write one more line, which is on the disk on return."""
    with path.open("ab") as file:
        file.write(json.dumps(row, allow_nan=False, ensure_ascii=False).encode() + b"\n")
        _sync(file)


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; none where it is missing."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        return [row for _, _, row in _rows(file)]


def cut(path: Path, step: int) -> None:
    """Drop every line behind `step`, and a last line that was torn. A file that is missing is left so."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        kept = [end for _, end, row in _rows(file) if row["step"] <= step]
        file.truncate(kept[-1] if kept else 0)
        _sync(file)


def _rows(file: BinaryIO) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(start, end, object) of each whole line, up to the first that is torn."""
    start = 0
    for line in file:
        try:
            row = json.loads(line)
        except ValueError:
            return
        if not line.endswith(b"\n") or not isinstance(row, dict) or not isinstance(row.get("step"), int):
            return
        yield start, start + len(line), row
        start += len(line)


def _plain(value: Any) -> Any:
    number = value if isinstance(value, int | str | None) else float(value)
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
