"""Writes docs/cli.md from the `forage` command itself: python docs/make_cli.py"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from forage.cli import SETTINGS, app

PAGE = Path(__file__).parent / "cli.md"

HEAD = """\
# Commands

*Written by `python docs/make_cli.py` from the command itself. `forage COMMAND --help` says the same.*

Results go to standard output, all else to standard error; with `--json` standard output holds one JSON object alone.
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted (what was saved is whole).
`--debug` (or `FORAGE_DEBUG=1`) shows the traceback of an error.
"""


def page() -> str:
    """The whole page."""
    root = typer.main.get_command(app)
    settings = f"## Settings\n\n{text(SETTINGS)}\n"
    return "\n".join([HEAD, settings, *(section(command, words) for words, command in commands(root, "forage"))])


def commands(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with the words that call it, groups opened."""
    for name, below in getattr(command, "commands", {}).items():
        if hasattr(below, "commands"):
            yield from commands(below, f"{words} {name}")
        else:
            yield f"{words} {name}", below


def section(command: Any, words: str) -> str:
    """One command: its help, then a table of what it takes."""
    context = typer.Context(command, info_name=words)
    usage = command.get_usage(context).removeprefix("Usage: ")
    rows = [f"| `{name}` | {line} |\n" for name, line in (row(parameter, context) for parameter in command.params)]
    table = "| | |\n|---|---|\n" + "".join(rows)
    return f"## {words}\n\n    {usage}\n\n{text(command.help)}\n\n{table}"


def row(parameter: Any, context: Any) -> tuple[str, str]:
    """A parameter and its help, as the command's own `--help` words them."""
    name, line = parameter.get_help_record(context)
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
    name, line = re.sub(r"<int( range)?>", "N", name), re.sub(r"  \[(.*)\]$", r" (\1)", line)
    return name.replace("|", "\\|"), line.replace("|", "\\|")


def text(words: str) -> str:
    """Help as Markdown: paragraphs are joined to a line each, what is indented becomes code."""
    paragraphs = words.replace("\b\n", "").strip("\n").split("\n\n")
    return "\n\n".join(part for paragraph in paragraphs for part in parts(paragraph))


def parts(paragraph: str) -> Iterator[str]:
    """The lines of a paragraph, prose and code apart."""
    for indented, run in groupby(paragraph.split("\n"), key=lambda line: line.startswith("  ")):
        lines = list(run)
        yield "\n".join(f"  {line}" for line in lines) if indented else " ".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
