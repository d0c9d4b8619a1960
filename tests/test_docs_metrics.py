"""docs/metrics.md speaks of every metric that the code writes, and of no other."""

import re
from pathlib import Path

from forage.types import StopReason

ROOT = Path(__file__).parent.parent
GROUPS = "reward|groups|episode|gain|stop|loss|policy|value|correction|learner|engine|search|cache|eval|time"
COMPUTED = {
    *(f"stop/{reason.value}" for reason in StopReason),
    *(f"eval/{name}" for name in ("em", "f1", "hit_rate", "searches_mean", "em_1_hop", "em_N_hop")),
    *(f"time/{name}" for name in ("step", "rollout", "score", "update", "sync", "save", "eval", "episodes", "gain")),
    *("reward/em", "reward/NAME"),
}
"""Names that the code puts together from parts."""


def written():
    """Names that stand in the source of whatever measures."""
    measuring = ("metrics.py", "training.py", "sft.py", "learners/*.py", "losses/*.py", "advantages/*.py")
    files = [path for pattern in measuring for path in (ROOT / "forage").glob(pattern)]
    return {name for path in files for name in re.findall(rf'"((?:{GROUPS})/[a-z_0-9]+)"', path.read_text("utf-8"))}


def test_the_page_lists_each_metric_in_a_table_and_no_other():
    rows = [line for line in (ROOT / "docs" / "metrics.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    listed = [name for row in rows for name in re.findall(rf"`((?:{GROUPS})/\w+)`", row.split("|")[1])]
    assert len(listed) == len(set(listed))
    assert set(listed) == written() | COMPUTED
