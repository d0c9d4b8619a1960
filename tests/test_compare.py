"""`forage compare`: arms, tests, the page, and what it says of runs that can't be compared."""

import json
import re
import shutil

import pytest
from run_folder import Stage, write_run, write_sft
from typer.testing import CliRunner

from forage.cli import app
from forage.compare import compare, write_comparison
from forage.errors import RunFolderError
from forage.records import read_records, write_records


@pytest.fixture(scope="module")
def stage():
    return Stage(60)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, stage):
    root = tmp_path_factory.mktemp("runs")
    more = {"stage": stage, "questions": 24, "steps": 30, "trajectory_steps": ()}
    for seed in (0, 1):
        write_run(root / f"grpo-seed{seed}", seed=seed, skill=0.95, **more)
        write_run(root / f"small-seed{seed}", seed=seed, skill=0.3, settings=["rollout.samples=4"], **more)
    return root


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "runs")


def every(root):
    return sorted(root.iterdir())


def command(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def predictions(run, step=30):
    return run / "eval" / f"step-{step:06d}" / "predictions.jsonl.zst"


def page_of(root, tmp_path):
    return write_comparison(compare(every(root)), tmp_path / "page.html").read_text("utf-8")


def test_runs_that_differ_in_their_seed_only_are_one_arm(whole):
    found = compare(every(whole)).as_json()
    assert [(arm["arm"], arm["seeds"]) for arm in found["arms"]] == [("grpo", [0, 1]), ("small", [0, 1])]
    assert [run["arm"] for run in found["runs"]] == ["grpo", "grpo", "small", "small"]
    assert found["differences"] == {"rollout.samples": {"grpo": 8, "small": 4}}
    grpo, small = found["arms"]
    assert grpo["samples"] == 30 * 24 * 8
    assert small["samples"] == 30 * 24 * 4
    for arm in (grpo, small):
        runs = [run for run in found["runs"] if run["arm"] == arm["arm"]]
        assert arm["em"] == pytest.approx(sum(run["em"] for run in runs) / 2)
        assert arm["em_ci"][0] <= min(run["em"] for run in runs)
        assert max(run["em"] for run in runs) <= arm["em_ci"][1]


def test_a_run_of_an_older_version_has_the_defaults_of_what_came_since(root):
    config = root / "grpo-seed0" / "config.toml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith(("trees =", "staleness ="))))
    assert len(lines) - 2 == len(config.read_text().splitlines())
    assert [arm["arm"] for arm in compare(every(root)).as_json()["arms"]] == ["grpo", "small"]


def test_every_run_says_what_it_came_to(whole):
    run = compare(every(whole)).as_json()["runs"][0]
    summary = json.loads((whole / "grpo-seed0" / "eval" / "step-000030" / "summary.json").read_text())
    assert {key: run[key] for key in ("em", "em_ci", "f1", "n")} == {k: summary[k] for k in ("em", "em_ci", "f1", "n")}
    assert (run["run"], run["seed"], run["steps"], run["missing"]) == (str(whole / "grpo-seed0"), 0, 30, None)


def test_arms_are_tested_on_the_same_questions(whole):
    (test,) = compare(every(whole)).as_json()["tests"]
    assert (test["a"], test["b"], test["method"], test["n"]) == ("grpo", "small", "bootstrap", 24)
    assert test["difference_ci"][0] < test["difference"] < test["difference_ci"][1] < 0
    assert test["difference_ci_seeds"][0] < test["difference_ci"][0]
    assert test["p"] == test["p_holm"] < 0.01
    assert [pair["a"][-1] + pair["b"][-1] for pair in test["pairs"]] == ["00", "11"]


def test_two_single_runs_are_tested_by_mcnemar(whole):
    (test,) = compare([whole / "grpo-seed0", whole / "small-seed0"]).as_json()["tests"]
    before, after = ([r["em"] for r in read_records(predictions(whole / f"{n}-seed0"))] for n in ("grpo", "small"))
    (pair,) = test["pairs"]
    assert pair["only_a"] == sum(x > y for x, y in zip(before, after, strict=True))
    assert pair["only_b"] == sum(x < y for x, y in zip(before, after, strict=True))
    assert (test["method"], test["p"], test["difference_ci_seeds"]) == ("mcnemar", pair["p"], None)


def test_equal_runs_of_other_settings_do_not_differ(root):
    shutil.rmtree(root / "small-seed0" / "eval")
    shutil.copytree(root / "grpo-seed0" / "eval", root / "small-seed0" / "eval")
    (test,) = compare([root / "grpo-seed0", root / "small-seed0"]).as_json()["tests"]
    assert (test["difference"], test["p"], test["difference_ci"]) == (0, 1, [0, 0])


def test_other_questions_are_not_compared_and_it_is_said(root, tmp_path):
    path = predictions(root / "small-seed1")
    records = list(read_records(path))
    records[0]["question"]["text"] = "Who else?"
    write_records(path, records)
    found = compare(every(root))
    (test,) = found.as_json()["tests"]
    assert test.keys() == {"a", "b", "refused"}
    assert "asked different questions: 24 and 24, 23 of them the same" in test["refused"]
    assert "No test: " in page_of(root, tmp_path)


def test_runs_without_a_final_evaluation_are_listed_and_the_others_compared(root, tmp_path):
    shutil.rmtree(root / "grpo-seed1" / "eval" / "step-000030")
    shutil.rmtree(root / "small-seed1" / "eval")
    write_sft(root / "supervised")
    found = compare(every(root)).as_json()
    missing = {run["run"].rpartition("/")[2]: run["missing"] for run in found["runs"] if run["missing"]}
    assert missing == {
        "grpo-seed1": "ended at step 30 and was last evaluated at step 0",
        "small-seed1": "has no evaluation; set train.eval_every, or run: forage eval RUN",
        "supervised": "is a supervised run, which has no evaluation",
    }
    assert [arm["seeds"] for arm in found["arms"]] == [[0], [0]]
    assert page_of(root, tmp_path).count("Left out: ") == 3


def test_a_run_with_damaged_predictions_is_left_out(root):
    path = predictions(root / "grpo-seed1")
    path.write_bytes(path.read_bytes()[:-20])
    (run,) = [run for run in compare(every(root)).as_json()["runs"] if run["missing"]]
    assert "has predictions that can't be read" in run["missing"]


def test_without_predictions_there_are_figures_but_no_test(root):
    predictions(root / "grpo-seed0").unlink()
    found = compare([root / "grpo-seed0", root / "small-seed0"]).as_json()
    assert found["runs"][0]["em"] is not None
    assert "predictions of" in found["tests"][0]["refused"]


def test_a_single_run_is_a_plain_table(whole, tmp_path):
    found = compare([whole / "grpo-seed0"])
    assert found.as_json()["tests"] == []
    assert found.as_json()["differences"] == {}
    html = write_comparison(found, tmp_path / "page.html").read_text("utf-8")
    assert "grpo-seed0: exact match <strong>" in html
    assert 'id="tests"' not in html
    assert 'id="settings"' not in html


def test_what_can_not_be_compared_is_refused(root, tmp_path):
    assert command(tmp_path / "nothing").exit_code == 2
    done = command(root / "grpo-seed0", root / "grpo-seed0")
    assert done.exit_code == 2
    assert "grpo-seed0 is given more than once" in done.stderr
    shutil.rmtree(root / "grpo-seed0" / "eval")
    with pytest.raises(RunFolderError, match=r"nothing to compare: .*grpo-seed0 has no"):
        compare([root / "grpo-seed0"])


def test_json_is_one_object_and_no_page_is_written(whole, tmp_path):
    done = command(*every(whole), "--json")
    assert json.loads(done.stdout)["page"] is None
    done = command(*every(whole), "--json", "--out", tmp_path / "sub" / "page.html")
    assert json.loads(done.stdout).keys() == {"runs", "arms", "tests", "differences", "page"}
    assert (tmp_path / "sub" / "page.html").is_file()


def test_the_command_says_a_line_for_each_arm(whole, tmp_path):
    done = command(*every(whole), "--out", tmp_path / "page.html")
    assert done.exit_code == 0
    assert re.match(r"grpo   exact match 0\.\d{3} \[0\.\d{3}, \d\.\d{3}\]  2 runs\nsmall  exact match", done.stdout)


def test_the_page_needs_nothing_else_and_is_the_same_each_time(whole, tmp_path):
    html = page_of(whole, tmp_path)
    assert not re.search(r"https?://|@import|url\(|fetch\(|innerHTML", html)
    assert html == page_of(whole, tmp_path)
    for link in re.findall(r'href="#(\w+)"', html):
        assert f'id="{link}"' in html
    assert "grpo is highest" in html
    assert html.count('class="band arm0"') >= 6


def test_names_of_folders_stay_text(root, tmp_path):
    (root / "grpo-seed0").rename(root / "<img src=x>")
    html = write_comparison(compare([root / "<img src=x>", root / "small-seed0"]), tmp_path / "p.html").read_text()
    assert "<img" not in html


def test_arms_in_folders_of_their_own_are_named_after_these(root):
    for name in ("grpo", "small"):
        for seed in (0, 1):
            (root / name).mkdir(exist_ok=True)
            (root / f"{name}-seed{seed}").rename(root / name / f"seed{seed}")
    found = compare([*every(root / "grpo"), *every(root / "small")])
    assert [arm.name for arm in found.arms] == ["grpo", "small"]


def test_rewards_are_drawn_by_episodes_where_steps_differ_in_them(whole, tmp_path):
    assert "Reward by episodes" in page_of(whole, tmp_path)
    same = write_comparison(compare([whole / "grpo-seed0", whole / "grpo-seed1"]), tmp_path / "p.html").read_text()
    assert "Reward by episodes" not in same


def test_the_headline_names_what_cannot_be_told_apart(whole, root, tmp_path):
    same = shutil.copytree(root / "grpo-seed0", root / "twin")
    (same / "config.toml").write_text((same / "config.toml").read_text().replace("lr = 0.0005", "lr = 0.0004"))
    runs = [root / "small-seed0", root / "grpo-seed0", same]
    html = write_comparison(compare(runs), tmp_path / "p.html").read_text()
    assert re.search(
        r"<h1>grpo-seed0 is highest, <strong>[\d.]+%</strong>; twin cannot be told apart from it</h1>", html
    )
    html = write_comparison(compare(runs[1:]), tmp_path / "p.html").read_text()
    assert "but not clearly so</h1>" in html
