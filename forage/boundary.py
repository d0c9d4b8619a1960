"""Where errors end: each becomes one clear message on standard error and an exit code.

0 done | 1 failed | 2 wrong usage or configuration | 130 interrupted
"""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from forage.errors import ConfigError, ForageError

INTERRUPTED = 130
FULL = (errno.ENOSPC, errno.EDQUOT)
RESUMABLE = ("train", "sft", "index")  # with --resume; every other command is simply run again


class Boundary(TyperGroup):
    """A group of commands that turns what they raise into messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        with reported(debug=bool(ctx.params.get("debug")), words=sys.argv[1:]):
            return super().invoke(ctx)


@contextmanager
def reported(*, debug: bool, words: Sequence[str]) -> Iterator[None]:
    """Report what is raised inside, and exit. `words` are the command line, for a hint how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted. What was saved is whole; go on with: {again(words)}")
        raise typer.Exit(INTERRUPTED) from None
    except ForageError as error:
        if debug:
            raise
        say("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]))
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        if debug or (not error.filename and error.errno not in FULL):
            raise
        say(f"error: {system_message(error, words)}")
        raise typer.Exit(1) from None
    except RuntimeError as error:
        # torch's own class would have to be imported to be named; it stands for CPU and GPU alike.
        if debug or type(error).__name__ != "OutOfMemoryError":
            raise
        say("error: out of memory on the device. Lower learner.micro_tokens, engine.slots or rollout.max_tokens")
        raise typer.Exit(1) from None


def say(message: str) -> None:
    """One message on standard error."""
    typer.echo(message, err=True)


def system_message(error: OSError, words: Sequence[str]) -> str:
    """What the operating system refused, and what to do."""
    where = f": {error.filename}" if error.filename else ""
    if error.errno in FULL:
        return f"no space left on the disk{where}. What was saved is whole; free some space, then: {again(words)}"
    return f"{error.strerror}{where}"


def again(words: Sequence[str]) -> str:
    """The command that goes on where `words` stopped. (`forage demo` itself would start over.)"""
    if words and words[0] == "demo":
        out = words[words.index("--out") + 1] if "--out" in words[:-1] else "runs/demo"
        return shlex.join(["forage", "train", out, "--resume"])
    resume = ["--resume"] if words and words[0] in RESUMABLE and "--resume" not in words else []
    return shlex.join(["forage", *words, *resume])


def check_words(words: Sequence[str]) -> list[str]:
    """The command line with `--debug` moved to its front, wherever it stood.

    Raises:
        ConfigError: a setting is written as an option (`--train.steps=5`).
    """
    for word in words:
        if word.startswith("--") and "." in word.partition("=")[0]:
            raise ConfigError(f"there is no option {word!r}; settings have no dashes: {word.lstrip('-')}")
    kept = [word for word in words if word != "--debug"]
    return ["--debug"] * (len(kept) < len(words)) + kept
