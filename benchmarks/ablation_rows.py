"""The table of ablations, `ablations.toml`: read, checked, and turned into the words of `forage train`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from forage.errors import ConfigError
from forage.registry import nearest

ROW = {"name", "group", "recipe", "set", "same_as", "base", "note"}
BASE = {"path", "make", "note"}
TABLE = {"recipe", "seeds", "common", "rows", "bases"}


@dataclass(frozen=True)
class Base:
    """A model that rows start from: what `model.path` is, and the commands that make it where it is not there."""

    name: str
    path: str
    make: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of the results: a recipe with settings over it, run once a seed.

    `runs` names the row whose runs it takes: its own, or the one that `same_as` says.
    """

    name: str
    group: str
    runs: str
    recipe: str
    overrides: tuple[str, ...] = ()
    base: Base | None = None
    note: str = ""

    @property
    def words(self) -> list[str]:
        """The settings that make the row what it is."""
        return [*([f"model.path={self.base.path}"] if self.base else []), *self.overrides]


@dataclass(frozen=True)
class Table:
    """All rows, in the order of the file, and what they have in common."""

    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    common: tuple[str, ...]

    def chosen(self, pattern: str) -> list[Row]:
        """Rows whose name or group fits a shell pattern; `*` takes all.

        Raises:
            ConfigError: none does.
        """
        found = [row for row in self.rows if fnmatchcase(row.name, pattern) or fnmatchcase(row.group, pattern)]
        if not found:
            raise ConfigError(f"no row fits {pattern!r}; {nearest(pattern, [row.name for row in self.rows])}")
        return found

    def words(self, row: Row) -> list[str]:
        """The settings of a row, without seed and folder."""
        return [*self.common, *row.words]


def read_table(path: Path) -> Table:
    """Read a table of ablations.

    Raises:
        ConfigError: the file is no TOML, a key is unknown, a name stands twice, or names nothing.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    _check_keys(table, TABLE, str(path))
    bases = {name: _base(name, written) for name, written in table.get("bases", {}).items()}
    rows: dict[str, Row] = {}
    for written in table.get("rows", []):
        row = _row(written, table.get("recipe", "demo"), bases, rows)
        if row.name in rows:
            raise ConfigError(f"{path}: there are two rows {row.name!r}")
        rows[row.name] = row
    if not rows:
        raise ConfigError(f"{path} holds no [[rows]]")
    return Table(tuple(rows.values()), tuple(table.get("seeds", [0, 1, 2])), tuple(table.get("common", [])))


def _base(name: str, written: dict[str, Any]) -> Base:
    _check_keys(written, BASE, f"base {name!r}")
    if "path" not in written:
        raise ConfigError(f"base {name!r} has no path")
    return Base(name, written["path"], tuple(written.get("make", [])))


def _row(written: dict[str, Any], recipe: str, bases: dict[str, Base], before: dict[str, Row]) -> Row:
    name = str(written.get("name", ""))
    if not name or "group" not in written:
        raise ConfigError(f"a row needs a name and a group: {written}")
    _check_keys(written, ROW, f"row {name!r}")
    note = written.get("note", "")
    if same := written.get("same_as"):
        if same not in before:
            raise ConfigError(f"row {name!r} is the same as {same!r}, which is no row above it")
        first = before[same]
        return Row(name, written["group"], first.runs, first.recipe, first.overrides, first.base, note)
    base = written.get("base")
    if base is not None and base not in bases:
        raise ConfigError(f"row {name!r} starts from {base!r}; {nearest(base, list(bases))}")
    return Row(
        name,
        written["group"],
        name,
        written.get("recipe", recipe),
        tuple(written.get("set", [])),
        bases[base] if base else None,
        note,
    )


def _check_keys(written: dict[str, Any], known: Sequence[str] | set[str], where: str) -> None:
    for key in written:
        if key not in known:
            raise ConfigError(f"{where}: {key!r} is unknown; {nearest(key, list(known))}")
