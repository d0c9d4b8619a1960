"""A run as one self-contained HTML file, made from nothing but the files in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forage.reporting.choose import choose_pairs, choose_training
from forage.reporting.curves import panels
from forage.reporting.episodes import Album
from forage.reporting.folder import RunData, read_run
from forage.reporting.overview import Side, sides
from forage.reporting.page import page


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run; runs still going, without evaluations or supervised have one too.

    Args:
        run: the run's folder.
        out: where to write; the run's `report.html` without it.

    Returns:
        The file, which needs nothing else to be looked at, and stays below 5 MB.

    Raises:
        RunFolderError: `run` is no run's folder.
    """
    data = read_run(run)
    compared, complaints = sides(data)
    data.missing += complaints
    drawn, flat = panels(data)
    episodes = _episodes(data, compared)
    text = page(data, compared, drawn, flat, episodes)
    target = out or run / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.part")
    beside.write_text(text, "utf-8")
    beside.replace(target)
    return target


def _episodes(data: RunData, compared: Sequence[Side]) -> dict[str, Any]:
    """What the page's script shows; what could not be read is noted in `data.missing`."""
    album = Album(data.tokenizer)
    pairs: dict[str, Any] = {"items": [], "kinds": [], "totals": {}}
    given = [(side.evaluation.predictions, side.outcomes) for side in compared]
    read = [(path, found) for path, found in given if path is not None and found]
    if read:
        steps = [side.evaluation.step for side in compared if side.outcomes]
        pairs = choose_pairs(read, album) | {"steps": steps}
    train, complaints = choose_training(data.trajectories, album)
    data.missing += complaints
    return {"pairs": pairs, "train": train, "pieces": album.pieces, "passages": album.passages}
