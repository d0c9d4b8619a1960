"""What goes wrong in a run is said in a line that tells what to do, and loses nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from forage.checkpoint import latest, step_of

DATA = Path(__file__).parent / "data" / "hotpotqa_sample"
SMALL = [
    "data.entities=60",
    "rollout.questions=2",
    "rollout.samples=2",
    "train.steps=3",
    "train.save_every=1",
    "run.threads=1",
    "tracking.console=false",
]


def forage(*words, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "forage", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("search=odd_parts:Broken", 1, "connection refused"),
        ("reward=odd_parts:not_a_number", 1, "not_a_number"),
        ("algorithm.loss=odd_parts:NeedsReference", 2, "learner.kl_coef"),
        ("algorithm.loss=odd_parts:NeedsBaselines", 2, "algorithm.advantage = 'grpo' does not"),
        ("search.k=500", 2, "search.k = 500"),
        ("rollout.max_observation_tokens=2", 2, "max_observation_tokens = 2"),
        ("trian.steps=3", 2, "train"),
        ("model.path=/no/such/model", 1, "does not exist"),
        ("learner.lr=fast", 2, "learner.lr"),
    ],
)
def test_a_run_that_can_not_go_on_says_why(tmp_path, setting, code, said):
    done = forage("train", "smoke", *SMALL, f"run.dir={tmp_path / 'run'}", setting, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reward_that_fails_on_the_way_loses_no_whole_step(tmp_path):
    """Two groups a step: the third step's first one fails."""
    run = tmp_path / "run"
    words = ["train", "smoke", *SMALL, "train.save_every=0", f"run.dir={run}", "reward=odd_parts:Patient"]
    done = forage(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(
        r"the reward 'odd_parts:Patient' failed on question '\S+': OSError\('the judge is gone'\)", done.stderr
    )
    assert "Step 2 is saved: mend the cause, then go on with --resume" in done.stderr
    assert step_of(latest(run / "checkpoints")) == 2
    again = forage(*words, "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert step_of(latest(run / "checkpoints")) == 3


def test_a_judge_without_its_key_is_refused_before_the_run(tmp_path):
    judge = ["reward=judge", "reward.url=http://127.0.0.1:9/v1", "reward.model=m", "reward.api_key_env=NO_SUCH_KEY"]
    done = forage("train", "smoke", *SMALL, f"run.dir={tmp_path / 'run'}", *judge, cwd=tmp_path)
    assert done.returncode == 2
    assert "NO_SUCH_KEY" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_search_engine_that_hangs_is_given_up(tmp_path):
    words = ["search=odd_parts:Hanging", "search.timeout_s=0.2", f"run.dir={tmp_path / 'run'}"]
    done = forage("train", "smoke", *SMALL, *words, cwd=tmp_path)
    assert done.returncode == 1
    assert "0.2" in done.stderr
    assert "searches failed" in done.stderr


def test_a_truncated_checkpoint_is_passed_over_on_resume(tmp_path):
    run = tmp_path / "run"
    words = ["train", "smoke", *SMALL, f"run.dir={run}"]
    assert forage(*words, cwd=tmp_path).returncode == 0
    whole = (run / "metrics.jsonl").read_text()
    weights = run / "checkpoints" / "step-000003" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    again = forage(*words, "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "truncated" in again.stderr
    assert step_of(latest(run / "checkpoints")) == 3

    def kept(text):
        rows = map(json.loads, text.splitlines())
        return [{k: v for k, v in row.items() if not k.startswith(("time/", "cache/"))} for row in rows]

    assert kept((run / "metrics.jsonl").read_text()) == kept(whole)


def test_bad_data_is_named_by_file_and_line(tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": "1", "question": "Who?", "answers": ["x"]}\n{"id": "2", "question": broken\n')
    words = ["data.kind=jsonl", f"data.questions={questions}", f"data.corpus={DATA / 'corpus.jsonl'}"]
    done = forage("train", "smoke", *SMALL[1:], *words, f"run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 1
    assert "questions.jsonl:2" in done.stderr
