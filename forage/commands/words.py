"""Words that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from forage.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]

Opening = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Options of opening the index, and of a reranker (reranker.path=...)."),
]


def whole_numbers(text: str) -> list[int]:
    """`3,10` as numbers, each once.

    Raises:
        ConfigError: it is something else.
    """
    try:
        return list(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"--k {text}: expected whole numbers with commas between them, such as 3,10") from error
