"""The tables and settings of `forage.config`, as data: names, types, defaults and help."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any, get_type_hints

from forage.config import Config, Part
from forage.options import Option


@cache
def tables() -> dict[str, type]:
    """Every table of a config by its dotted name, `algorithm.loss` after `algorithm`."""

    def walk(table: type, prefix: str) -> Iterator[tuple[str, type]]:
        for name, kind in get_type_hints(table).items():
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                yield prefix + name, kind
                yield from walk(kind, f"{prefix}{name}.")

    return dict(walk(Config, ""))


@cache
def parts() -> tuple[str, ...]:
    """The dotted names of the tables that have a `kind`."""
    return tuple(name for name, table in tables().items() if issubclass(table, Part))


@cache
def fields(table: str) -> dict[str, Option]:
    """The settings that Forage itself declares in a table, without a part's options, by name."""
    kind = tables()[table]
    types, lines = get_type_hints(kind, include_extras=True), field_help(kind)
    return {
        item.name: Option(item.name, types[item.name], _default(item), lines[item.name])
        for item in dataclasses.fields(kind)
        if f"{table}.{item.name}" not in tables() and not (item.name == "options" and issubclass(kind, Part))
    }


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


@cache
def field_help(table: type) -> dict[str, str]:
    """The line under each field of a table, by field name; a part's `kind` included."""
    body = ast.parse(inspect.getsource(table)).body[0]
    assert isinstance(body, ast.ClassDef)
    lines: dict[str, str] = {}
    for line, below in zip(body.body, body.body[1:], strict=False):
        match line, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                lines[name] = " ".join(text.split())
    return lines
