"""What a run does about a collapse: it warns, stops, or is taken back; and how that is told."""

import json
import logging
import shutil

import pytest
from run_folder import write_metrics
from typer.testing import CliRunner

from forage import checkpoint
from forage.cli import app
from forage.configure import changed, dump, load
from forage.errors import CollapseError, ConfigError
from forage.health import Health, rollbacks, take_back, with_retries
from forage.report import write_report
from forage.runfolder import RunFolder
from forage.training import train_from_config

RETRY = 'diagnosis.retry=["learner.lr=1e-4"]'
ROLLBACK = ("diagnosis.on_collapse=rollback", RETRY)


def config(folder, *overrides):
    """A tiny run."""
    tiny = ["data.entities=60", "rollout.questions=2", "rollout.samples=2", "train.steps=5", "train.save_every=1"]
    shown = ["run.threads=1", "tracking.console=false", f"run.dir={json.dumps(str(folder))}"]
    return load("smoke", [*tiny, *shown, *overrides])


def rows(steps, start=1):
    """Searches are given up half way."""
    return [
        {"step": step, "reward/mean": 0.5, "episode/searches": 2.0 if step <= steps // 2 else 0.0}
        for step in range(start, steps + 1)
    ]


def played(folder, *overrides, steps=40):
    """The health of a run that has logged `rows`, and the collapses that it told."""
    health = Health(folder, config(folder, *overrides))
    told = [(row["step"], health.look(row["step"], row)) for row in rows(steps)]
    return [(step, collapse) for step, collapse in told if collapse]


def health_rows(folder):
    path = folder / "health.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_finding_is_warned_of_once_and_kept(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert played(tmp_path) == []
    assert [record.message.split(":")[0] for record in caplog.records] == ["step 28"]
    assert "searches an episode fell from 2.00" in caplog.text
    assert "lower learner.lr" in caplog.text
    kept = health_rows(tmp_path)
    assert [(row["step"], row["rule"], row["collapse"]) for row in kept] == [(28, "searches_given_up", True)]


@pytest.mark.parametrize("action", [("diagnosis.on_collapse=stop",), ROLLBACK])
def test_a_collapse_ends_a_run_that_says_so(tmp_path, action):
    [(step, collapse)] = played(tmp_path, *action)
    assert (step, collapse.since) == (28, 21)
    assert "the policy collapsed" in str(collapse)
    assert collapse.exit_code == 1


def test_what_asks_for_a_look_only_ends_nothing(tmp_path):
    health = Health(tmp_path, config(tmp_path, "diagnosis.on_collapse=stop"))
    looked = [health.look(step, {"reward/mean": 1.0, "groups/signal": 0.0, "groups/solved": 1.0}) for step in range(20)]
    assert looked == [None] * 20
    assert health_rows(tmp_path)[0]["rule"] == "solved"


def test_a_resumed_run_remembers_what_it_was_told(tmp_path):
    write_metrics(tmp_path, rows(30))
    health = Health(tmp_path, config(tmp_path, "diagnosis.on_collapse=stop"))
    assert [health.look(row["step"], row) for row in rows(40, start=31)] == [None] * 10


def write_checkpoints(folder, steps, best=None):
    for step in steps:
        checkpoint.save(folder / "checkpoints", step, lambda at: (at / "weights").write_text("x"))
    if best:
        checkpoint.mark_best(folder / "checkpoints", best, 0.5)


@pytest.mark.parametrize(
    ("saved", "best", "back_to", "left"),
    [
        ([10, 20, 30], None, 20, [10, 20]),
        ([10, 20, 30], 30, 20, [10, 20]),
        ([25, 30], 25, 25, [25]),
        ([25, 30], None, 0, []),
        ([], None, 0, []),
    ],
)
def test_a_run_is_taken_back_to_before_its_collapse(tmp_path, saved, best, back_to, left):
    before = config(tmp_path / "run", *ROLLBACK)
    with RunFolder.open(tmp_path / "run", before) as folder:
        write_metrics(folder.path, rows(34))
        write_checkpoints(folder.path, saved, best)
        after = take_back(folder, before, 34, CollapseError("it collapsed", 21))
        assert (after.learner.options["lr"], before.learner.options["lr"]) == (1e-4, 5e-4)
        assert load(folder.path) == after
        assert checkpoint.steps(folder.path / "checkpoints") == left
        assert (folder.path / "checkpoints" / "best.json").exists() == (best == back_to)
        assert len((folder.path / "metrics.jsonl").read_text().splitlines()) == back_to
        told = {
            "step": back_to,
            "kind": "rollback",
            "from": 34,
            "says": "it collapsed",
            "settings": ["learner.lr=1e-4"],
        }
        assert rollbacks(folder.path) == [told]
        with pytest.raises(CollapseError):
            take_back(folder, after, 34, CollapseError("again", 21))
    assert with_retries(folder.path, before) == after


def test_retries_are_checked_before_a_run_begins(tmp_path):
    with pytest.raises(ConfigError, match=r"learner\.rate"):
        Health(tmp_path, config(tmp_path, ROLLBACK[0], 'diagnosis.retry=["learner.rate=1"]'))
    with pytest.raises(ConfigError, match="needs settings"):
        config(tmp_path, ROLLBACK[0])
    with pytest.raises(ConfigError, match="does nothing"):
        config(tmp_path, RETRY)


def test_what_a_run_would_go_on_with_is_checked_before_it_starts(tmp_path):
    retry = 'diagnosis.retry=["algorithm.advantage=gae"]'
    with pytest.raises(ConfigError, match="set critic=own"):
        train_from_config(config(tmp_path / "run", ROLLBACK[0], retry))
    assert not (tmp_path / "run").exists()


def test_a_configuration_is_changed_as_a_whole(tmp_path):
    before = config(tmp_path)
    assert changed(before, []) == before
    after = changed(before, ["algorithm.loss=nll", "learner.lr=1"])
    assert (after.algorithm.loss.kind, after.learner.options["lr"]) == ("nll", 1.0)
    assert load(None, [f"run.dir={before.run.dir}"]).run.dir == before.run.dir
    assert "clip_low" not in dump(after)


FADING = ("reward=fading_reward:Fading", "diagnosis.window=2")
"""Nothing is rewarded from step 4 on, which is seen at step 5."""


@pytest.fixture(scope="module")
def taken_back(tmp_path_factory):
    """A real run that collapsed, and was taken back."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_from_config(config(folder, *FADING, *ROLLBACK))["step"] == 5
    return folder


def test_a_run_that_collapsed_goes_on_with_other_settings(taken_back):
    [row] = rollbacks(taken_back)
    assert (row["from"], row["step"]) == (5, 3)
    metrics = [json.loads(line) for line in (taken_back / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2, 3, 4, 5]
    assert [row["reward/mean"] for row in metrics] == [0.5] * 5
    assert [row["policy/lr"] for row in metrics] == [5e-4, 5e-4, 5e-4, 1e-4, 1e-4]
    assert load(taken_back).learner.options["lr"] == 1e-4


def test_a_run_that_was_taken_back_is_resumed_by_its_old_words(taken_back, tmp_path):
    folder = shutil.copytree(taken_back, tmp_path / "run")
    longer = config(folder, *FADING, *ROLLBACK, "train.steps=6")
    assert train_from_config(longer, resume=True)["step"] == 6


def test_a_run_that_was_taken_back_as_often_as_it_may_stops(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(CollapseError, match="step 8"):
        train_from_config(config(folder, *FADING, *ROLLBACK, "train.steps=9"))
    assert len(rollbacks(folder)) == 1


def test_a_run_that_stops_is_saved(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(CollapseError, match="step 5"):
        train_from_config(config(folder, *FADING, "diagnosis.on_collapse=stop", "train.save_every=0", "train.steps=9"))
    assert checkpoint.steps(folder / "checkpoints") == [5]


def test_the_report_and_the_command_tell_it(taken_back):
    html = write_report(taken_back).read_text("utf-8")
    assert "<h2>Health</h2>" in html
    assert "went on with learner.lr=1e-4" in html
    done = CliRunner().invoke(app, ["diagnose", str(taken_back)])
    assert (done.exit_code, "taken back from step" in done.stdout) == (0, True)


def test_diagnose_reads_metrics_alone(tmp_path):
    write_metrics(tmp_path, rows(40))
    found = json.loads(CliRunner().invoke(app, ["diagnose", str(tmp_path), "--json"]).stdout)
    assert [finding["rule"] for finding in found["findings"]] == ["searches_given_up"]
    assert (found["steps"], found["rollbacks"]) == (40, [])
    write_metrics(tmp_path, rows(10))
    assert "nothing found in 10 steps" in CliRunner().invoke(app, ["diagnose", str(tmp_path)]).stdout


def test_diagnose_of_nothing_says_so(tmp_path):
    done = CliRunner().invoke(app, ["diagnose", str(tmp_path)])
    assert done.exit_code != 0
