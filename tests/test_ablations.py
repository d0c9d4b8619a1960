"""The ablation runner of benchmarks/: its table, how runs stand, running them, and what is written of them."""

import json
import sys
from pathlib import Path

import pytest
from run_folder import Stage, write_metrics, write_run

from forage.configure import load
from forage.errors import ConfigError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import ablation_jobs as jobs  # noqa: E402
from ablation_measure import collapsed, first_above, jitter  # noqa: E402
from ablation_rows import read_table  # noqa: E402
from ablations import base_command, plan, write_results  # noqa: E402

TABLE = """
recipe = "demo"
seeds = [0, 1]
common = ["train.steps=80"]
[bases.weak]
path = "runs/weak"
make = ["forage sft warm-start run.dir=runs/weak"]
[[rows]]
name = "grpo"
group = "Algorithms"
[[rows]]
name = "one_step"
group = "Algorithms"
set = ["rollout.questions=192"]
note = "larger"
[[rows]]
name = "mask_on"
group = "Mask"
same_as = "grpo"
[[rows]]
name = "weaker"
group = "Start"
base = "weak"
[[rows]]
name = "typo"
group = "Mask"
set = ["rollout.sampels=4"]
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.toml"
    path.write_text(TABLE)
    return read_table(path)


@pytest.fixture(scope="module")
def stage():
    return Stage(60)


def finished(out, name, seed, stage, **more):
    return write_run(out / f"{name}-seed{seed}", questions=12, trajectory_steps=(), stage=stage, seed=seed, **more)


def states(table, out):
    return {one.name: one.state for one in plan(table, "*", table.seeds, out)}


def test_the_table_of_the_repository_can_be_read_and_its_recipe_and_common_settings_exist():
    table = read_table(BENCHMARKS / "ablations.toml")
    assert {row.recipe for row in table.rows} == {"demo"}
    config = load("demo", table.common)
    assert config.train.eval_every == config.train.steps, "the last step is to be evaluated"


def test_rows_that_share_runs_are_run_once_and_seed_by_seed(table, tmp_path):
    names = [one.name for one in plan(table, "*", [0, 1], tmp_path)]
    assert names == [f"{name} seed {seed}" for seed in (0, 1) for name in ("grpo", "one_step", "weaker", "typo")]
    assert [one.name for one in plan(table, "mask*", [0], tmp_path)] == ["grpo seed 0"]
    assert [one.name for one in plan(table, "Mask", [0], tmp_path)] == ["grpo seed 0", "typo seed 0"]


def test_a_base_is_what_the_row_starts_from(table):
    weaker = next(row for row in table.rows if row.name == "weaker")
    assert table.words(weaker) == ["train.steps=80", "model.path=runs/weak"]
    assert base_command(weaker.base.make[0])[1:] == ["-m", "forage", "sft", "warm-start", "run.dir=runs/weak"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('rows = [{name = "a"}]', "needs a name and a group"),
        ('rows = [{name = "a", group = "g", sett = []}]', "'sett' is unknown; did you mean 'set'"),
        ('rows = [{name = "a", group = "g", same_as = "b"}]', "no row above it"),
        ('rows = [{name = "a", group = "g", base = "b"}]', "starts from 'b'"),
        ('rows = [{name = "a", group = "g"}, {name = "a", group = "g"}]', "two rows 'a'"),
        ("seeds = [1]", "holds no"),
        ("rows = ", "Invalid value"),
    ],
)
def test_a_table_that_can_not_be_meant_is_refused(tmp_path, line, message):
    path = tmp_path / "table.toml"
    path.write_text(line)
    with pytest.raises(ConfigError, match=message):
        read_table(path)


def test_how_a_run_stands(table, tmp_path, stage):
    finished(tmp_path, "grpo", 0, stage)
    half = finished(tmp_path, "grpo", 1, stage)
    jobs.final_summary(half, 80).unlink()
    finished(tmp_path, "one_step", 0, stage)
    assert states(table, tmp_path) == {
        "grpo seed 0": "done",
        "grpo seed 1": "unfinished",
        "one_step seed 0": "changed",
        "one_step seed 1": "to do",
        "weaker seed 0": "to do",
        "weaker seed 1": "to do",
        "typo seed 0": "unknown",
        "typo seed 1": "unknown",
    }
    by_name = {one.name: one for one in plan(table, "*", [0, 1], tmp_path)}
    assert by_name["one_step seed 0"].message == "rollout.questions was 24"
    assert "did you mean 'rollout.samples'" in by_name["typo seed 0"].message
    assert "--resume" in jobs.train(by_name["grpo seed 1"])
    assert "--resume" not in jobs.train(by_name["grpo seed 0"])


def test_settings_that_came_or_went_since_do_not_make_a_finished_run_another(table, tmp_path, stage):
    run = finished(tmp_path, "grpo", 0, stage)
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("[rollout]", "[rollout]\nolder = 3").replace("samples = 8\n", ""))
    assert states(table, tmp_path)["grpo seed 0"] == "done"


def test_a_run_that_fails_does_not_stop_the_others(table, tmp_path, capsys):
    done = []
    pending = plan(table, "*", [0, 1], tmp_path)
    script = "import sys; sys.exit('no such thing') if 'typo' in sys.argv[1] else None"
    failed = jobs.run_all(
        pending, 2, tmp_path / "logs", done.append, command=lambda one: [sys.executable, "-c", script, one.name]
    )
    assert {one.name for one in done} == {one.name for one in pending if one.row.name != "typo"}
    assert sorted(failed) == ["typo seed 0: no such thing", "typo seed 1: no such thing"]
    assert "FAILED  typo seed 0" in capsys.readouterr().out


def test_results_hold_a_row_for_what_is_done(table, tmp_path, stage):
    out, path = tmp_path / "runs", tmp_path / "results" / "ablations.json"
    for seed, skill in ((0, 0.9), (1, 1.0)):
        finished(out, "grpo", seed, stage, skill=skill)
    rows = write_results(table, out, path)
    assert json.loads(path.read_text()) == rows
    assert [row["name"] for row in rows] == ["grpo", "mask_on"]
    row = rows[0]
    assert row["seeds"] == [0, 1]
    assert row["em_mean"] == pytest.approx(sum(row["em"]) / 2, abs=1e-4)
    assert row["em_ci"][0] < row["em_mean"] <= row["em_ci"][1] <= 1
    assert row["samples"] == 80 * 24 * 8
    assert [len(curve) for curve in row["curve"]] == [80, 80]
    assert (row["commit"], row["versions"], row["cpu"]) == (
        "0123456789",
        {"torch": "2.13.0+cpu"},
        "Example Processor 9000",
    )
    assert rows[1] | {"name": "grpo", "group": "Algorithms"} == row


def test_rows_are_tested_against_the_first_of_their_group(table, tmp_path, stage):
    for seed in (0, 1):
        finished(tmp_path, "grpo", seed, stage, skill=1.0)
        finished(tmp_path, "one_step", seed, stage, skill=0.1, settings=["rollout.questions=192"])
    first, other, alone = write_results(table, tmp_path, tmp_path / "r.json")
    assert first["versus"] is None
    assert alone["versus"] is None
    assert other["versus"]["row"] == "grpo"
    assert other["versus"]["difference"] == pytest.approx(other["em_mean"] - first["em_mean"], abs=2e-4)
    assert other["versus"]["ci"][1] < 0
    assert other["versus"]["p_holm"] == other["versus"]["p"] < 0.05


def test_rows_stay_where_their_runs_are_gone_unless_their_settings_changed(table, tmp_path, stage):
    out, path = tmp_path / "runs", tmp_path / "ablations.json"
    finished(out, "grpo", 0, stage)
    before = write_results(table, out, path)
    assert write_results(table, tmp_path / "elsewhere", path) == before
    path.write_text(json.dumps([before[0] | {"common": ["train.steps=5"]}]))
    assert write_results(table, tmp_path / "elsewhere", path) == []


def test_when_a_run_is_good_enough(tmp_path, stage):
    from forage.reporting.folder import read_run

    run = finished(tmp_path, "grpo", 0, stage)
    rewards = [0.1] * 10 + [0.95] * 70
    rows = [{"step": i + 1, "reward/mean": value, "time/step": 1.0} for i, value in enumerate(rewards)]
    write_metrics(run, rows)
    data = read_run(run)
    assert first_above(data, 0.9) == (15, 15 * 192)
    assert first_above(data, 0.96)[0] == float("inf")
    write_metrics(run, [row | {"groups/played": 30} for row in rows])
    assert first_above(read_run(run), 0.9) == (15, 15 * 30 * 8)


def test_a_collapse_is_a_fall_from_the_best_so_far():
    assert collapsed([0.9] * 10 + [0.5] * 10)
    assert not collapsed([0.2] * 10 + [0.9] * 10)
    assert not collapsed([0.9] * 10 + [0.1] + [0.9] * 10), "one bad step is none"
    assert not collapsed([0.9, 0.1])
    assert jitter([0.5] * 30) == 0
    assert jitter([0.5, 0.7] * 15) == pytest.approx(0.2, abs=0.02)
