"""Any Hugging Face model through the very commands of the demo: train, resume, evaluate, ask, export."""

import json
import os
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoTokenizer

import forage
from forage.ask import ask
from forage.configure import load
from forage.export import export_model
from forage.training import train_from_config

DATA = Path(__file__).parent / "data"
REAL = Path(os.environ.get("FORAGE_TOKENIZERS", "/nonexistent"))
FAMILIES = {"Qwen2": "qwen2.5", "Qwen3": "qwen3", "Llama": "llama3"}
CASES = [(family, DATA / "bpe_small") for family in FAMILIES]
CASES += [(family, REAL / name) for family, name in FAMILIES.items() if (REAL / name).is_dir()]
SETTINGS = [
    "data.kind=jsonl",
    f"data.questions={DATA / 'hotpotqa_sample' / 'questions.jsonl'}",
    f"data.corpus={DATA / 'hotpotqa_sample' / 'corpus.jsonl'}",
    "renderer.template=default",
    "reward=odd_parts:by_tokens",
    "search.k=2",
    "rollout.questions=2",
    "rollout.samples=4",
    "rollout.max_searches=1",
    "rollout.max_turn_tokens=12",
    "rollout.max_observation_tokens=200",
    "rollout.max_tokens=1400",
    "engine.slots=4",
    "train.steps=2",
    "train.save_every=1",
    "train.save_trajectories_every=0",
    "eval.questions=2",
    "run.threads=1",
    "tracking.console=false",
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].name}")
def checkpoint(request, tmp_path):
    """A folder as Hugging Face writes it: random weights and a tokenizer."""
    family, tokenizer_folder = request.param
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=len(tokenizer) + 5,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=family != "Llama",
    )
    folder = tmp_path / "model"
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_is_trained_evaluated_asked_and_exported(checkpoint, tmp_path, dtype):
    run = tmp_path / "run"
    settings = [*SETTINGS, f"model.path={checkpoint}", f"model.dtype={dtype}", f"engine.dtype={dtype}"]
    settings += ["model.gradient_checkpointing=true", "learner.lr=1e-3", "learner.kl_coef=0.01", f"run.dir={run}"]
    assert train_from_config(load("smoke", settings))["step"] == 2
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss/kl"] >= 0 for row in rows if row["groups/signal"])
    assert any(row["policy/grad_norm"] > 0 for row in rows)

    summary = forage.evaluate(run)
    assert summary["n"] == 2
    assert sum(summary["stop_reasons"].values()) == 1

    shown = []
    record = ask(run, "Who wrote it?", write=lambda kind, text: shown.append(text))
    assert record["question"]["text"] == "Who wrote it?"
    assert "".join(shown)

    export_model(run, tmp_path / "out")
    before = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    after = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
