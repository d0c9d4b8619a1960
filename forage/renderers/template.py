"""The wording of the tag protocol, in a TOML file: shipped by name, or the user's own by path."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from forage.errors import ConfigError
from forage.registry import nearest

SHIPPED = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Template:
    """What the policy is told, and how.

    `{name}` is replaced where the name is one of those below; other braces are plain text.
    """

    prompt: str
    """Stands before the first turn. `{question}`."""
    found: str
    """Around what a search found: `{passages}`, and `{note}` where there are notes."""
    passage: str
    """One passage, best first: `{text}`, and optionally `{title}` and `{index}` (from 1)."""
    retry: str
    """After a turn without a usable action. `{note}` where there are notes."""
    separator: str = "\n"
    """Between two passages."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Searches left ("0", "1", ...) -> what to say then; "other": for all counts not named. `{left}` is the count."""

    def note(self, left: int) -> str:
        """What is said with `left` searches left."""
        return fill(self.notes.get(str(left), self.notes.get("other", "")), left=str(left))


def fill(layout: str, /, **values: str) -> str:
    """`layout` with each `{name}` of `values` replaced; what is filled in is not looked at again."""
    return re.sub(rf"\{{({'|'.join(values)})\}}", lambda match: values[match[1]], layout)


def load_template(name: str) -> Template:
    """The shipped template of that name, or the one in the TOML file at that path.

    Raises:
        ConfigError: there is no such template, or it has an unknown key, lacks one, or lacks a placeholder.
    """
    shipped = sorted(path.stem for path in SHIPPED.glob("*.toml"))
    path = SHIPPED / f"{name}.toml" if name in shipped else Path(name)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"renderer.template = {name!r} is neither a file nor one of {', '.join(shipped)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    template = Template(**_checked(table, path))
    _check_placeholders(template, path)
    return template


def _checked(table: dict[str, Any], path: Path) -> dict[str, Any]:
    known = [item.name for item in fields(Template)]
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; {nearest(key, known)}")
        if key != "notes" and not isinstance(value, str):
            raise ConfigError(f"{path}: {key} must be a string")
    for item in fields(Template):
        if item.name not in table and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{path}: {item.name!r} is missing; a template has {', '.join(known)}")
    notes = table.get("notes", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise ConfigError(f"{path}: [notes] must be a table of strings")
    for key in notes:
        if not (key.isdecimal() or key == "other"):
            raise ConfigError(f'{path}: [notes] {key!r} must be a number of searches left, such as "0", or "other"')
    return table


def _check_placeholders(template: Template, path: Path) -> None:
    needed = [("prompt", "{question}"), ("found", "{passages}"), ("passage", "{text}")]
    if any(template.notes.values()):
        needed += [("found", "{note}"), ("retry", "{note}")]
    for key, placeholder in needed:
        if getattr(template, key).count(placeholder) != 1:
            raise ConfigError(f"{path}: {key} must hold {placeholder} exactly once")
