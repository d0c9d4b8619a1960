"""Metrics on disk, on the terminal, and elsewhere."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from forage.errors import MissingExtra
from forage.trackers.console import ConsoleTracker, Pace, duration
from forage.trackers.fanout import Fanout
from forage.trackers.jsonl import JsonlTracker, cut
from forage.trackers.tensorboard import TensorBoardTracker
from forage.trackers.wandb import WandbTracker


class Remembers:
    """A tracker, a TensorBoard writer and a W&B run at once: it remembers what it is told."""

    def __init__(self, fails: bool = False):
        self.told: list[tuple] = []
        self.fails = fails

    def log(self, *words, **more):
        self.told.append((*words, *more.values()))

    add_scalar = log

    def flush(self):
        self.told.append(("flush",))

    def progress(self, title):
        return lambda done, total: self.told.append((title, done, total))

    def close(self):
        self.told.append(("close",))
        if self.fails:
            raise OSError("no network")

    finish = close


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def fill(path: Path, steps: int) -> None:
    tracker = JsonlTracker(path)
    for step in range(1, steps + 1):
        tracker.log(step, {"reward/mean": step / 2})
    tracker.close()


def test_one_object_a_step(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    tracker = JsonlTracker(path)
    tracker.log(0, {"eval/em": 0.25})
    tracker.log(1, {"reward/mean": 0.5, "loss/policy": float("nan")})
    tracker.log(1, {"eval/em": 0.75, "reward/mean": 0.6})
    assert rows(path) == [
        {"step": 0, "eval/em": 0.25},
        {"step": 1, "reward/mean": 0.6, "loss/policy": None, "eval/em": 0.75},
    ]
    tracker.close()


def test_a_line_is_on_the_disk_when_log_returns(tmp_path):
    tracker = JsonlTracker(tmp_path / "m.jsonl")
    tracker.log(1, {"a": 1})
    assert rows(tmp_path / "m.jsonl") == [{"step": 1, "a": 1}]
    tracker.close()


def test_a_file_is_gone_on_with(tmp_path):
    path = tmp_path / "m.jsonl"
    fill(path, 2)
    tracker = JsonlTracker(path)
    tracker.log(2, {"eval/em": 1.0})
    tracker.log(3, {"reward/mean": 2.0})
    tracker.close()
    assert [row["step"] for row in rows(path)] == [1, 2, 3]
    assert rows(path)[1] == {"step": 2, "reward/mean": 1.0, "eval/em": 1.0}


@given(steps=st.integers(0, 6), keep=st.integers(0, 8), torn=st.integers(0, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_cut_leaves_whole_lines_up_to_the_step(tmp_path, steps, keep, torn):
    path = tmp_path / "m.jsonl"
    path.unlink(missing_ok=True)
    fill(path, steps)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(len(whole) - torn, 0)])
    left = path.read_bytes().count(b"\n")
    cut(path, keep)
    assert [row["step"] for row in rows(path)] == list(range(1, min(left, keep) + 1))


def test_what_is_cut_and_written_again_is_the_same_to_the_byte(tmp_path):
    path = tmp_path / "m.jsonl"
    fill(path, 5)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    cut(path, 3)
    tracker = JsonlTracker(path)
    for step in (4, 5):
        tracker.log(step, {"reward/mean": step / 2})
    tracker.close()
    assert path.read_bytes() == whole


def test_cutting_a_file_that_is_missing_makes_none(tmp_path):
    cut(tmp_path / "m.jsonl", 3)
    assert not (tmp_path / "m.jsonl").exists()


def test_fanout_tells_all_and_closes_all_though_one_fails():
    first, second = Remembers(), Remembers(fails=True)
    fanout = Fanout([first, second])
    fanout.log(1, {"a": 1})
    fanout.progress("evaluating")(2, 3)
    with pytest.raises(OSError, match="no network"):
        fanout.close()
    assert first.told == second.told == [(1, {"a": 1}), ("evaluating", 2, 3), ("close",)]


METRICS = {
    "reward/mean": 0.5,
    "reward/em": 0.25,
    "time/tokens_per_s": 1234.0,
    "episode/searches": 1.5,
    "stop/answered": 0.75,
    "stop/no_answer": 0.25,
    "stop/context_full": 0.0,
    "time/searches_per_s": 12.0,
    "time/retrieval_share": 0.05,
    "engine/wasted": 0.1,
    "engine/reuse": 0.9,
    "groups/signal": 0.6,
    "time/decode": 2.0,
    "time/update": 0.5,
}
FIVE = ("searches/s", "waiting for retrieval", "tokens thrown away", "KV reused", "groups with signal")


def watched(terminal: bool) -> str:
    seconds = iter(range(0, 1000, 10))
    out = io.StringIO()
    tracker = ConsoleTracker(
        "mine", 4, Console(file=out, force_terminal=terminal, width=160), lambda: float(next(seconds))
    )
    tracker.log(1, METRICS)
    tracker.progress("evaluating")(3, 3)
    tracker.log(2, METRICS)
    tracker.close()
    tracker.close()
    return out.getvalue()


def test_without_a_terminal_there_is_one_plain_line_a_step():
    lines = watched(terminal=False).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("mine 2/4  reward 0.500  EM 0.250  searches an episode 1.50  tokens/s 1,234")
    assert "answered 75%  no_answer 25%  20s left" in lines[1]
    assert "\x1b" not in lines[1]
    assert all(figure in lines[1] for figure in FIVE)


def test_a_terminal_shows_progress_figures_and_where_the_time_goes():
    text = watched(terminal=True)
    assert "evaluating: 3 of 3" in text
    assert "decode 2.00s" in text
    assert "40s left" in text
    assert all(figure in text for figure in FIVE)


def test_the_pace_starts_where_the_run_was_opened():
    seconds = iter([100.0, 130.0])
    pace = Pace(lambda: next(seconds))
    assert pace.left(60) is None
    pace.reach(50)
    assert pace.left(60) is None
    pace.reach(53)
    assert pace.left(60) == 70.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.314, "0.31s"), (42.4, "42s"), (185, "3m05s"), (7800, "2h10m"), (0, "0.00s")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_tensorboard_gets_numbers_and_wandb_all(tmp_path):
    writer, run = Remembers(), Remembers()
    for tracker in (TensorBoardTracker(tmp_path, writer), WandbTracker(tmp_path, "forage", run)):
        tracker.log(3, {"a/b": 0.5, "note": "text"})
        tracker.close()
    assert writer.told == [("a/b", 0.5, 3), ("flush",), ("close",)]
    assert run.told == [({"a/b": 0.5, "note": "text"}, 3), ("close",)]


@pytest.mark.parametrize(
    ("module", "make"),
    [("tensorboard", lambda folder: TensorBoardTracker(folder)), ("wandb", lambda folder: WandbTracker(folder, "x"))],
)
def test_a_missing_extra_says_how_to_install_it(tmp_path, module, make):
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    with pytest.raises(MissingExtra, match=rf"pip install 'forage-rl\[{module}\]'"):
        make(tmp_path)
