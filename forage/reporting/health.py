"""What a run's metrics say about its health, for the report and for `forage diagnose`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from forage.config import Diagnosis
from forage.diagnosis.rules import RULES
from forage.diagnosis.watch import Finding, diagnose
from forage.errors import RunFolderError
from forage.health import rollbacks
from forage.reporting.folder import RunData, read_metrics, read_toml


def findings(rows: list[dict[str, float]], config: Mapping[str, Any]) -> list[Finding]:
    """What the rules see in a run's rows, with the thresholds and the limit of searches of its configuration."""
    known = {field.name for field in dataclasses.fields(Diagnosis)}
    limits = Diagnosis(**{name: value for name, value in config.get("diagnosis", {}).items() if name in known})
    return diagnose(rows, limits, int(config.get("rollout", {}).get("max_searches", 0)))


def diagnose_run(run: Path) -> dict[str, Any]:
    """The health of a run: `dir`, `steps`, `findings` in the order of their steps, and `rollbacks`.

    Reads metrics.jsonl; thresholds from config.toml and rollbacks from health.jsonl, where these are there.

    Raises:
        RunFolderError: there are no metrics.
    """
    rows = read_metrics(run / "metrics.jsonl")
    if not rows:
        raise RunFolderError(f"{run} holds no metrics yet: no step has ended, or it is no run's folder")
    found = findings(rows, read_toml(run / "config.toml"))
    return {
        "dir": str(run),
        "steps": int(rows[-1]["step"]),
        "findings": [dataclasses.asdict(finding) for finding in found],
        "rollbacks": rollbacks(run),
    }


def health_text(found: Mapping[str, Any]) -> str:
    """`diagnose_run` in words."""
    lines = [
        f"taken back from step {r['from']} to {r['step']} ({_settings(r)}): {r['says']}" for r in found["rollbacks"]
    ]
    for finding in found["findings"]:
        kind = "collapse" if finding["collapse"] else "look"
        lines.append(f"step {finding['step']}  {kind}  {finding['rule']}: {finding['says']}. {finding['advice']}")
    return "\n".join(lines) or f"nothing found in {found['steps']} steps"


def health_section(data: RunData) -> str:
    """The report's section: a table of what was seen; empty for runs without rewards."""
    if data.supervised or not data.rows:
        return ""
    rows = "".join(_rollback_row(row) for row in data.rollbacks) + "".join(
        _row(f"{finding.step:,}", "collapse" if finding.collapse else "look", finding.says, finding.advice)
        for finding in findings(data.rows, data.config)
    )
    if not rows:
        return f"<h2>Health</h2><p>None of {len(RULES)} rules saw anything in {data.steps:,} steps.</p>"
    head = "<tr><th>Step</th><th></th><th>Seen</th><th>To try</th></tr>"
    return f"<h2>Health</h2><table class=health><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _rollback_row(row: Mapping[str, Any]) -> str:
    return _row(f"{row['from']:,} → {row['step']:,}", "taken back", row["says"], f"went on with {_settings(row)}")


def _settings(row: Mapping[str, Any]) -> str:
    return ", ".join(row["settings"])


def _row(step: str, kind: str, says: str, advice: str) -> str:
    cells = "".join(f"<td>{escape(text)}</td>" for text in (kind, says, advice))
    return f"<tr><th scope=row>{step}</th>{cells}</tr>"
