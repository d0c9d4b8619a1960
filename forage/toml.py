"""TOML out of plain values, and single TOML values as they are typed on a command line."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_KEY = re.compile(r'"(?:[^"\\]|\\.)*"|[^."]+')  # one key of a dotted one; quoted where it holds a dot itself
_BARE_POINT = re.compile(r"(?<=[=\[,\s+-])\.(?=\d)")


def literal(text: str) -> Any:
    """The value of one command-line word: TOML where it is TOML (`3`, `1e-6`, `true`, `"a b"`, `[1, 2]`), a number
    (`.5`, in tables too), a list of bare words (`[a, b]`), and otherwise the word itself."""
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return _loose_table(text) if text.lstrip().startswith("{") else _loose(text.strip())
    return table["value"] if len(table) == 1 else text


def _loose_table(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {_BARE_POINT.sub('0.', text)}")["value"]
    except tomllib.TOMLDecodeError:
        return text


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
    """Every leaf of nested tables, with its dotted key; a key that holds a dot itself is quoted in it."""
    for name, value in table.items():
        key = dump_key(name) if set(name) & {".", '"'} else name
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys back into nested tables."""
    tables: dict[str, Any] = {}
    for key, value in leaves.items():
        *path, last = (json.loads(word) if word.startswith('"') else word for word in _KEY.findall(key))
        table = tables
        for word in path:
            table = table.setdefault(word, {})
        table[last] = value
    return tables
