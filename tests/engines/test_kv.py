import pytest
import torch
from transformers import Qwen3Config

from forage.engines.decoder import Decoder
from forage.engines.kv import kv_bytes


@pytest.mark.parametrize(("kind", "max_tokens"), [("qwen2", 100), ("qwen3", 31), ("llama", 16)])
def test_the_stated_bytes_are_those_allocated(model, kind, max_tokens):
    made = model(kind)
    cache = Decoder(made, 3, max_tokens, torch.float32).kv
    assert cache.bytes == kv_bytes(made.config, 3, max_tokens, torch.float32)


def test_bytes_of_a_real_model():
    config = Qwen3Config(num_hidden_layers=28, num_key_value_heads=8, head_dim=128, num_attention_heads=16)
    gibibytes = kv_bytes(config, 64, 4096, torch.bfloat16) / 2**30
    assert gibibytes == pytest.approx(28, rel=0.01)  # 2 x 28 layers x 8 heads x 128 x 2 bytes a token
