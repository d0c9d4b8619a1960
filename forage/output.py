"""What the commands print: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import typer


def show(result: dict[str, Any], as_json: bool, text: str) -> None:
    """The result: one JSON object, or words for a person."""
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else text)


def report_end(result: dict[str, Any]) -> None:
    """Where a run ended."""
    typer.echo(f"step {result['step']} done; the run is in {result['dir']}")


def summary_text(summary: dict[str, Any]) -> str:
    """An evaluation in words."""
    low, high = summary["em_ci"]
    hops = "  ".join(f"{hop} hop {em:.3f}" for hop, em in summary["by_hop"].items())
    stops = "  ".join(f"{name} {share:.1%}" for name, share in summary["stop_reasons"].items())
    return (
        f"exact match  {summary['em']:.3f}  (95%: {low:.3f} to {high:.3f}, n = {summary['n']:,})\n"
        f"F1           {summary['f1']:.3f}\n"
        + (f"covered      {_covered_text(summary['covered'])}\n" if "covered" in summary else "")
        + (f"by hop       {hops}\n" if hops else "")
        + f"found        {summary['hit_rate']:.3f}  of the questions had an answer in a passage that was found\n"
        f"searches     {summary['searches_mean']:.2f}  an episode\n"
        f"ended        {stops}"
    )


def _covered_text(covered: dict[str, Any] | None) -> str:
    """The exact match of what the corpus can answer."""
    if covered is None:
        return "none of these questions can be answered from the corpus"
    low, high = covered["em_ci"]
    return f"{covered['em']:.3f}  (95%: {low:.3f} to {high:.3f}) of the {covered['n']:,} that the corpus can answer"


def progress(what: str) -> Callable[[int, int], None] | None:
    """A line on the terminal that is written over; None where standard error is none."""
    if not sys.stderr.isatty():
        return None
    last = 0.0

    def advance(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > 0.2:
            last = time.monotonic()
            typer.echo(f"\r{done:,} of {total:,} {what}", err=True, nl=done == total)

    return advance


def counting() -> Callable[[str, int, int], None] | None:
    """A line on the terminal for work in stages, written over within one; None where standard error is no terminal.

    It is told what is done, how many, and of how many (0 where that is not known).
    """
    if not sys.stderr.isatty():
        return None
    last, stage = 0.0, ""

    def advance(what: str, done: int, total: int) -> None:
        nonlocal last, stage
        if done == total or what != stage or time.monotonic() - last > 0.2:
            last, stage = time.monotonic(), what
            typer.echo(f"\r{done:,}{f' of {total:,}' if total else ''} {what}", err=True, nl=done == total)

    return advance


def stream(as_json: bool) -> Callable[[str, str], None]:
    """Shows what the policy writes as it comes, and dimmed what it is shown."""

    def write(kind: str, text: str) -> None:
        shown = text if kind == "policy" else typer.style(f"\n  {text}", dim=True)
        typer.echo(shown, err=as_json, nl=False)

    return write
