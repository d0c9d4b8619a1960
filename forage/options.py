"""A part's options, read from its class: the keyword-only parameters. And values, checked against types."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from forage.errors import ConfigError
from forage.registry import find, nearest

REQUIRED: Any = inspect.Parameter.empty

_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", NoneType: "nothing"}


@dataclass(frozen=True, slots=True)
class Option:
    """One setting of a part: where it is read, what it may be, and its default (REQUIRED where it has none)."""

    name: str
    type: Any
    default: Any
    help: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value as somebody wrote it, and where: a file, or the command line (`text` is the word as typed there)."""

    value: Any
    where: str
    text: str | None = None


def signature(part: str, kind: str) -> dict[str, Option]:
    """The options of a kind of a part, by name. A plain function has none. Imports the file of that kind.

    A class that is made of other kinds names them in `made_of`, and has their options besides its own.

    Raises:
        ConfigError: there is no such kind.
    """
    found = find(part, kind)
    if not inspect.isclass(found):
        return {}
    parameters = [p for p in inspect.signature(found).parameters.values() if p.kind is p.KEYWORD_ONLY]
    # Only these annotations are evaluated: those of other parameters may name what only type checkers import.
    annotated = SimpleNamespace(__annotations__={p.name: p.annotation for p in parameters})
    scope = inspect.getmodule(found).__dict__ if inspect.getmodule(found) else {}
    scope = getattr(found.__init__, "__globals__", scope)
    types = get_type_hints(annotated, globalns=scope, localns=vars(found), include_extras=True)
    lines = _argument_help(found.__doc__ or "")
    own = {p.name: Option(p.name, types[p.name], p.default, lines.get(p.name, "")) for p in parameters}
    inner = [signature(part, other) for other in getattr(found, "made_of", ())]
    return {name: option for options in (*inner, own) for name, option in options.items()}


def _argument_help(docstring: str) -> dict[str, str]:
    """The lines of an "Args:" section, by argument."""
    _, _, section = inspect.cleandoc(docstring).partition("Args:\n")
    section = re.split(r"^\S", section, maxsplit=1, flags=re.MULTILINE)[0]
    entries = re.findall(r"^ {4}(\w+)[^:\n]*:((?:.*\n?)(?: {5,}.*\n?)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def arguments(
    part: str, kind: str, given: Mapping[str, Any], *, shared: Iterable[str] = (), complete: bool = True
) -> dict[str, Any]:
    """The keyword arguments of a part's constructor: what is given, typed and checked, over the defaults.

    Args:
        part: name of the part, such as `search` or `algorithm.loss`.
        kind: a registered name, or `package.module:Class`.
        given: values by option name, or `Setting`s of them.
        shared: what every kind of the part has besides; named where an option is unknown.
        complete: refuse where an option without a default is not given; otherwise it is left out.

    A class with a static method `check_options(arguments)` has the last word: it returns them, checked further.

    Raises:
        ConfigError: an option is unknown, of the wrong type, or missing.
    """
    known = signature(part, kind)
    chosen: dict[str, Any] = {}
    for name, value in given.items():
        setting = value if isinstance(value, Setting) else Setting(value, "")
        if name not in known:
            raise ConfigError(_unknown_option(part, kind, name, setting, [*known, *shared]))
        chosen[name] = convert(f"{part}.{name}", setting, known[name].type)
    missing = [name for name in required(known) if name not in chosen]
    if missing and complete:
        name = missing[0]
        raise ConfigError(f"{part}.{name} is missing: {part}.kind = {kind!r} needs it. {known[name].help}".rstrip())
    chosen = {name: chosen.get(name, option.default) for name, option in known.items() if name not in missing}
    check = getattr(find(part, kind), "check_options", None)
    return check(chosen) if check and not missing else chosen


def undotted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by the names that constructors have: `encoder.path` is `encoder_path`."""
    return {name.replace(".", "_"): value for name, value in options.items()}


def required(known: Mapping[str, Option]) -> list[str]:
    """The options that have no default."""
    return [name for name, option in known.items() if option.default is REQUIRED]


def _unknown_option(part: str, kind: str, name: str, setting: Setting, known: Sequence[str]) -> str:
    hint = nearest(f"{part}.{name}", [f"{part}.{other}" for other in known]) if known else "it has none"
    return f"{part}.{name}{place(setting)} is unknown: {part}.kind = {kind!r} has no such option; {hint}"


def place(setting: Setting) -> str:
    """Where a setting was written, as part of a message."""
    return f" ({setting.where})" if setting.where else ""


def convert(key: str, setting: Setting, kind: Any) -> Any:
    """A setting's value as the type `kind`; lists become tuples, strings paths, whole numbers floats where that is
    asked for. A word of the command line stays as typed where a string is asked for (`run.dir=2026`).

    Raises:
        ConfigError: it can't be had as that type; the message names key, place, what was expected and what was got.
    """
    if isinstance(kind, type) and isinstance(setting.value, kind) and kind is not float and kind is not int:
        return setting.value
    try:
        value = msgspec.convert(setting.value, kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        if setting.text is not None and not isinstance(setting.value, str) and takes_strings(kind):
            return convert(key, Setting(setting.text, setting.where), kind)
        raise ConfigError(_mismatch(key, setting, kind, str(error))) from None
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(_mismatch(key, setting, kind, ""))
    return value


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise NotImplementedError(f"options of type {kind} can't stand in TOML")


def takes_strings(kind: Any) -> bool:
    """Whether a string or a path is a value of the type."""
    if get_origin(kind) in (Union, UnionType):
        return any(map(takes_strings, get_args(kind)))
    return kind in (str, Path)


def _mismatch(key: str, setting: Setting, kind: Any, detail: str) -> str:
    expected = describe(kind)
    got = repr(setting.value)
    if isinstance(setting.value, str) and (words := _words(kind)):
        return f"{key} = {got}{place(setting)}: expected {expected}; {nearest(setting.value, words)}"
    inside = f" (at {detail.partition('`$')[2].rstrip('`')})" if "`$" in detail else ""
    found = _described_value(setting.value) if "got" in detail or inside else got
    return f"{key} = {got}{place(setting)}: expected {expected}, got {found}{inside}"


def _words(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [word for word in get_args(kind) if isinstance(word, str)]
    return [word for inner in get_args(kind) for word in _words(inner)] if _is_union(kind) else []


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def describe(kind: Any) -> str:
    """A type in words: `a whole number >= 1`, `one of 'a', 'b'`, `a list of a number`."""
    arguments = get_args(kind)
    match get_origin(kind):
        case None:
            return _NAMES.get(kind, "a path" if kind is Path else getattr(kind, "__name__", str(kind)))
        case origin if origin is Annotated:
            return describe(arguments[0]) + "".join(map(_bounds, arguments[1:]))
        case origin if origin is Literal:
            return "one of " + ", ".join(map(repr, arguments))
        case origin if origin in (Union, UnionType):
            return " or ".join(describe(inner) for inner in arguments if inner is not NoneType)
        case origin if origin is tuple and ... not in arguments:
            return "a list [" + ", ".join(map(describe, arguments)) + "]"
        case origin if issubclass(origin, Mapping):
            return f"a table of {describe(arguments[1])} each"
        case _:
            return f"a list of {describe(arguments[0])} each"


def _bounds(meta: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [f"{sign} {getattr(meta, name)}" for name, sign in signs.items() if getattr(meta, name, None) is not None]
    return " " + " and ".join(found) if found else ""


def _described_value(value: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", list: "a list"}
    return "a table" if isinstance(value, Mapping) else words.get(type(value), type(value).__name__)
