import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_policies import FAMILIES, tiny_model

from forage.errors import CheckpointError, ConfigError
from forage.models.causal_lm import as_policy, load_policy, load_weights, resolve

SMALL_BPE = Path(__file__).parents[1] / "data" / "bpe_small"
REAL = Path(os.environ.get("FORAGE_TOKENIZERS", "/nowhere"))


def tokenizer_of(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def write_checkpoint(folder, family="Qwen2", tokenizer=SMALL_BPE, **options):
    loaded = tokenizer_of(tokenizer)
    model = tiny_model(family, vocab_size=len(loaded), **options)
    model.save_pretrained(folder)
    loaded.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_exported_weights_come_back_bit_for_bit(tmp_path, family, tied):
    write_checkpoint(tmp_path / "in", family, tie_word_embeddings=tied)
    policy = load_policy(tmp_path / "in", dtype="bfloat16")
    policy.export(tmp_path / "out")
    again = load_policy(tmp_path / "out")
    for (name, weight), (_, other) in zip(policy.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert weight.dtype is torch.float32
        assert torch.equal(weight, other), name
    assert again.tokenizer.encode("Who wrote it?") == policy.tokenizer.encode("Who wrote it?")
    assert policy.dtype is torch.bfloat16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_an_export_replaces_a_model_but_nothing_else(tmp_path, folder):
    policy = load_policy(folder)
    policy.export(folder)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("")
    with pytest.raises(CheckpointError, match="is no model folder"):
        policy.export(tmp_path / "thesis")


def test_weights_of_another_folder_take_the_place_of_the_models_own(tmp_path, folder):
    other = write_checkpoint(tmp_path / "checkpoints" / "step-000010" / "model", seed=1)
    newer = write_checkpoint(tmp_path / "checkpoints" / "step-000020" / "model", seed=2)
    for init_from, expected in ((other, other), (other.parent, other), (tmp_path, newer)):
        policy = load_policy(folder, init_from=init_from)
        wanted = load_policy(expected).model.state_dict()
        assert all(torch.equal(wanted[name], value) for name, value in policy.model.state_dict().items())


def test_weights_of_another_shape_are_refused(tmp_path, folder):
    other = write_checkpoint(tmp_path / "other", intermediate_size=32)
    with pytest.raises(CheckpointError, match="another model"):
        load_policy(folder, init_from=other)
    shallow = write_checkpoint(tmp_path / "shallow", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match="lacks"):
        load_policy(folder, init_from=shallow)


def test_a_folder_whose_weights_do_not_fit_its_config_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3})
    )
    with pytest.raises(CheckpointError, match="lacks"):
        load_policy(folder)
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))
    with pytest.raises(CheckpointError):
        load_policy(folder)


def test_truncated_weights_are_named(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        load_policy(folder)
    with pytest.raises(CheckpointError, match=r"model.safetensors is truncated"):
        load_weights(tiny_model(), folder)


def test_missing_paths_and_other_folders_are_told_apart(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        resolve(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no model"):
        resolve(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        resolve(tmp_path / "file")
    assert resolve("Qwen/Qwen2.5-3B") == "Qwen/Qwen2.5-3B"


def test_an_unreachable_hub_is_said_plainly(tmp_path):
    code = (
        "from forage.models.causal_lm import load_policy\n"
        "from forage.errors import CheckpointError\n"
        "try: load_policy('nobody/no-such-model')\n"
        "except CheckpointError as error: print(error)"
    )
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=True).stdout
    assert "nobody/no-such-model is no local folder and could not be had from the Hugging Face hub" in said


def test_an_unknown_dtype_is_refused(folder):
    with pytest.raises(ConfigError, match="float32, bfloat16"):
        load_policy(folder, dtype="float8")


def test_every_token_that_ends_a_text_is_known(tmp_path):
    folder = write_checkpoint(tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    policy = load_policy(folder)
    assert policy.eos_token_ids[:2] == (3, 4)
    assert policy.tokenizer.eos_token_id in (*policy.eos_token_ids, None)


def test_bos_is_put_before_a_text_only_where_the_tokenizer_does_so():
    tokenizer = tokenizer_of(SMALL_BPE)
    assert as_policy(tiny_model(), tokenizer).bos_token_id is None
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(5)
    assert as_policy(tiny_model(), tokenizer).bos_token_id is None  # named, but never put there


@pytest.mark.skipif(not REAL.is_dir(), reason="FORAGE_TOKENIZERS names no folder of real tokenizers")
@pytest.mark.parametrize("folder", sorted(REAL.glob("*/")) if REAL.is_dir() else [], ids=lambda path: path.name)
def test_real_tokenizers_have_the_bos_of_their_family(folder):
    policy = as_policy(tiny_model(), tokenizer_of(folder))
    assert (policy.bos_token_id is not None) is ("llama" in folder.name.lower())
