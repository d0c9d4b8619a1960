"""Files of `forage coverage`: for each question, by its id, whether a corpus can answer it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from forage.datasets.lines import read_lines, write_lines
from forage.errors import DataError


class Covered(msgspec.Struct, frozen=True):
    """What a corpus has for one question."""

    id: str
    covered: bool
    """it has a gold answer, or all supporting titles"""
    answer: bool
    """a gold answer stands in some passage"""
    titles: bool | None = None
    """all supporting titles are there; None where the question names none"""


def write_coverage(path: Path, found: Iterable[Covered]) -> None:
    """One JSON object a question; the file appears once it is complete."""
    write_lines(path, found)


def read_coverage(path: Path) -> dict[str, Covered]:
    """By question id.

    Raises:
        DataError: the file is missing, or a line is not what `forage coverage` writes; names file and line.
    """
    found = {}
    for where, row in read_lines(path):
        try:
            each = msgspec.convert(row, Covered)
        except msgspec.ValidationError as error:
            raise DataError(f"{where}: {error}; coverage files are written by `forage coverage --out`") from error
        found[each.id] = each
    return found
