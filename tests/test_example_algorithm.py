"""The parts of examples/my_algorithm.py do what docs/extending.md says, in a real run, without a change to Forage."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from vectors import close, rows_of, tensor

from forage.aggregation import aggregation
from forage.configure import load
from forage.training import train_from_config

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "examples"))

from my_algorithm import Ranks, SoftGate  # noqa: E402

VECTORS = json.loads((ROOT / "tests" / "data" / "reference" / "policy_loss_more.json").read_text("utf-8"))["cases"]
RUN = [
    "data.entities=60",
    "rollout.questions=2",
    "rollout.samples=4",
    "rollout.max_turn_tokens=16",
    "eval.questions=2",
    "train.steps=1",
    "train.save_every=0",
    "run.threads=1",
    "tracking.console=false",
    "reward=odd_parts:by_tokens",
    "algorithm.advantage=my_algorithm:Ranks",
    "algorithm.loss=my_algorithm:SoftGate",
    "algorithm.loss.tau=2.0",
]


def test_a_run_with_an_algorithm_of_ones_own(tmp_path):
    config = load("smoke", [*RUN, f"run.dir={tmp_path / 'run'}"])
    assert config.algorithm.loss.options == {"tau": 2.0, "tau_negative": 1.05}
    assert train_from_config(config)["step"] == 1
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert {"loss/policy", "policy/ratio"} <= row.keys()
    assert load(tmp_path / "run") == config


def test_what_the_advantage_says():
    rewards_B = torch.tensor([0.0, 5.0, 5.0, 9.0, 1.0, 1.0, 3.0])
    batch = rows_of(torch.tensor([[0, 1]] * 7).bool(), sampled_logprobs_BT=torch.zeros(7, 2))
    batch = replace(batch, rewards_B=rewards_B, group_B=torch.tensor([0, 0, 0, 0, 1, 1, 2]))
    advantages_BT = Ranks()(batch, lambda total: total).advantages_BT
    torch.testing.assert_close(advantages_BT[:, 1], torch.tensor([-1, 0, 0, 1.0, 0, 0, 0]))
    assert (advantages_BT[:, 0] == 0).all()


@pytest.mark.parametrize(
    "case", [case for case in VECTORS if case["inputs"]["loss"] == "sapo"], ids=lambda c: c["name"]
)
def test_the_loss_is_that_of_a_peer(case):
    inputs, expected = case["inputs"], case["expected"]
    logprobs_BT, acted_BT = tensor(inputs["logprob"]).requires_grad_(), torch.tensor(inputs["mask"]).bool()
    columns = {"sampled_logprobs_BT": tensor(inputs["old_logprob"]), "advantages_BT": tensor(inputs["advantages"])}
    loss = SoftGate(tau=inputs["tau_pos"], tau_negative=inputs["tau_neg"])
    loss_BT, _ = loss(logprobs_BT, rows_of(acted_BT, **columns))
    total = (loss_BT * aggregation("sequence_mean")(acted_BT, int(acted_BT.sum()), int(acted_BT.any(1).sum()))).sum()
    total.backward()
    close(total.detach(), expected["loss"], case)
    close(logprobs_BT.grad, expected["grad"], case)


def test_the_page_shows_the_code_as_it_is():
    code = (ROOT / "examples" / "my_algorithm.py").read_text("utf-8")
    assert f"```python\n{code}```" in (ROOT / "docs" / "extending.md").read_text("utf-8")
