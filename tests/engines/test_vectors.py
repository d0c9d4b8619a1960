"""What compiled functions keep on disk for the next run is theirs, and of what they call."""

import subprocess
import sys

import pytest

pytest.importorskip("numba", reason="numba (the extra `fast`) is not installed")
HELPER = """
from forage.engines.vectors import inlined

@inlined
def helped(x):
    return x + {}
"""
MAIN = """
from helper import helped
from forage.engines.vectors import compiled

@compiled
def called(x):
    return helped(x)

print(called(1), sum(called.stats.cache_hits.values()))
"""


def test_machine_code_is_kept_until_a_helper_changes(tmp_path):
    (tmp_path / "main.py").write_text(MAIN)
    said = []
    for added in (10, 20, 20):
        (tmp_path / "helper.py").write_text(HELPER.format(added))
        command = [sys.executable, "-B", str(tmp_path / "main.py")]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        said.append(done.stdout.split())
    assert said == [["11", "0"], ["21", "0"], ["21", "1"]]
