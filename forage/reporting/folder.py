"""A run's folder, as far as it is there: runs still going, without evaluations, or half copied included."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forage.errors import RunFolderError
from forage.health import rollbacks

Row = dict[str, float]
_EVAL = re.compile(r"step-(\d{6,})(-\w+)?")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of a run. `predictions` is None where they are not there."""

    step: int
    name: str
    summary: dict[str, Any]
    predictions: Path | None


@dataclass(slots=True)
class RunData:
    """What a run's folder holds. `missing` says in sentences what it does not."""

    name: str
    config: dict[str, Any]
    config_text: str
    environment: dict[str, Any]
    result: dict[str, Any]
    rows: list[Row]  # metrics, one a step, ascending
    evals: list[Evaluation]  # with the run's own settings, by step
    probes: list[Evaluation]  # with others: another search engine, other data
    trajectories: list[Path]
    tokenizer: Path | None
    rollbacks: list[dict[str, Any]] = field(default_factory=list)  # the times that the run was taken back
    missing: list[str] = field(default_factory=list)

    @property
    def supervised(self) -> bool:
        """Whether it is a supervised run, which has losses and no rewards."""
        return any("loss/policy" in row for row in self.rows) and not any("reward/mean" in row for row in self.rows)

    @property
    def steps(self) -> int:
        """The last step of which there are metrics."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def planned(self) -> int:
        """The steps that the configuration asks for; 0 if it does not say."""
        table = self.config.get("sft" if self.supervised else "train", {})
        return int(table.get("steps", 0))

    def column(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one metric, where there is a number."""
        return [(int(row["step"]), row[name]) for row in self.rows if name in row]


def read_run(run: Path) -> RunData:
    """Read a run's folder.

    Raises:
        RunFolderError: it is no folder, or holds nothing of a run.
    """
    if not run.is_dir():
        raise RunFolderError(f"there is no folder {run}")
    text = _text(run / "config.toml")
    rows, (evals, probes) = read_metrics(run / "metrics.jsonl"), _evaluations(run / "eval")
    if not (text or rows or evals or probes):
        raise RunFolderError(f"{run} holds no run: neither config.toml nor metrics.jsonl nor evaluations")
    data = RunData(
        name=run.resolve().name,
        config=_toml(text),
        config_text=text,
        environment=_json(run / "environment.json"),
        result=_json(run / "result.json"),
        rows=rows,
        evals=evals,
        probes=probes,
        trajectories=sorted(run.glob("trajectories/step-*.jsonl.zst")),
        tokenizer=_tokenizer(run),
        rollbacks=rollbacks(run),
    )
    data.missing += _missing(data)
    return data


def read_metrics(path: Path) -> list[Row]:
    """Numbers of metrics.jsonl, lines of one step joined; a torn last line and what is no number are dropped."""
    by_step: dict[int, Row] = {}
    for line in _text(path).splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            numbers = {name: value for name, value in row.items() if _is_number(value)}
            by_step.setdefault(row["step"], {}).update(numbers)
    return [by_step[step] for step in sorted(by_step)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _evaluations(root: Path) -> tuple[list[Evaluation], list[Evaluation]]:
    own: list[Evaluation] = []
    others: list[Evaluation] = []
    for folder in sorted(root.glob("step-*")):
        named, summary = _EVAL.fullmatch(folder.name), _json(folder / "summary.json")
        if named and summary.get("n"):
            predictions = folder / "predictions.jsonl.zst"
            found = Evaluation(int(named[1]), folder.name, summary, predictions if predictions.is_file() else None)
            (others if named[2] else own).append(found)
    return sorted(own, key=lambda e: e.step), others


def _tokenizer(run: Path) -> Path | None:
    places = [run / "tokenizer" / "tokenizer.json"]
    places += sorted(run.glob("checkpoints/step-*/model/tokenizer.json"), reverse=True)
    return next((path for path in places if path.is_file()), None)


def _missing(data: RunData) -> list[str]:
    said = []
    if not data.rows:
        said.append("There are no metrics yet: no step has ended, or metrics.jsonl is missing.")
    elif data.steps < data.planned:
        said.append(f"The run stands at step {data.steps:,} of {data.planned:,}: it is still going, or was stopped.")
    if not data.evals and not data.supervised:
        said.append("There is no evaluation. Set train.eval_every, or run: forage eval RUN")
    elif len(data.evals) == 1:
        said.append(f"There is one evaluation only (step {data.evals[0].step:,}), so nothing to compare it with.")
    if any(e.predictions is None for e in data.evals):
        said.append("The predictions of some evaluation are missing, and with them its intervals by hop.")
    if not data.trajectories and not data.supervised:
        said.append("No training episodes are saved. Set train.save_trajectories_every.")
    if data.tokenizer is None and (data.trajectories or data.evals):
        said.append("No tokenizer is saved with the run yet, so episodes are shown by action instead of by token.")
    if not data.environment:
        said.append("environment.json is missing: hardware and commit are not known.")
    return said


def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's tables; none where it is missing or no TOML."""
    return _toml(_text(path))


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}
