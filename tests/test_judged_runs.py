"""A whole run that is rewarded by a judge, whose endpoint goes away and comes back."""

import os
import subprocess
import sys

from chat_server import said, serving

from forage.checkpoint import latest, step_of

KEY = "sk-0123456789"
SMALL = [
    *("data.entities=60", "rollout.questions=2", "rollout.samples=3", "train.steps=3", "train.save_every=0"),
    *("train.eval_every=0", "run.threads=1", "tracking.console=false"),
]


def forage(*words, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JUDGE_KEY": KEY}
    command = [sys.executable, "-m", "forage", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=120)


def test_a_judge_that_goes_away_costs_no_whole_step_and_is_asked_nothing_twice(tmp_path):
    def judge(number, body):
        if number >= 8:
            return 500, {}, f"out of memory, {KEY}"
        return said("no" if len(body["messages"][0]["content"]) % 2 else "yes")

    run = tmp_path / "run"
    with serving(judge) as endpoint:
        options = [f"reward.url={endpoint.url}", "reward.model=judge-1", "reward.api_key_env=JUDGE_KEY"]
        options += ["reward.exact=false", "reward.retries=0", f"reward.cache_file={tmp_path / 'verdicts.jsonl'}"]
        words = ["train", "smoke", *SMALL, f"run.dir={run}", "reward=judge", *options]
        gone = forage(*words, cwd=tmp_path)
        assert gone.returncode == 1, gone.stderr
        assert f"{endpoint.url}/chat/completions was asked once and gave no reply: status 500" in gone.stderr
        assert "Step 1 is saved" in gone.stderr
        assert step_of(latest(run / "checkpoints")) == 1
        answered = endpoint.prompts[:8]
        endpoint.script = lambda number, body: said("yes")
        back = forage(*words, "--resume", cwd=tmp_path)
        assert back.returncode == 0, back.stderr
        assert step_of(latest(run / "checkpoints")) == 3
        assert not set(answered) & set(endpoint.prompts[9:])
    assert KEY not in gone.stderr + gone.stdout + back.stderr + back.stdout
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
