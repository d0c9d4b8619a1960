"""TOML out of plain values, and single TOML values as they are typed on a command line."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def literal(text: str) -> Any:
    """The value of one command-line word: TOML where it is TOML (`3`, `1e-6`, `true`, `"a b"`, `[1, 2]`), a number
    (`.5`), a list of bare words (`[a, b]`), and otherwise the word itself."""
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return _loose(text.strip())
    return table["value"] if len(table) == 1 else text


def _loose(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return [literal(item.strip()) for item in text[1:-1].split(",") if item.strip()]
    try:
        return float(text)
    except ValueError:
        return text


def dump_value(value: Any) -> str:
    """One value as TOML. Mappings become inline tables, paths strings.

    Raises:
        TypeError: TOML has no such value (None included).
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str() | PurePath():
            return _string(str(value))
        case Mapping():
            pairs = (f"{dump_key(key)} = {dump_value(item)}" for key, item in value.items())
            return "{" + ", ".join(pairs) + "}"
        case Sequence():
            return "[" + ", ".join(map(dump_value, value)) + "]"
    raise TypeError(f"TOML has no {type(value).__name__}")


def dump_key(key: str) -> str:
    """A key, quoted where it has to be."""
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested tables, with its dotted key."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys back into nested tables."""
    tables: dict[str, Any] = {}
    for key, value in leaves.items():
        *path, last = key.split(".")
        table = tables
        for word in path:
            table = table.setdefault(word, {})
        table[last] = value
    return tables
