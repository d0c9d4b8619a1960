import os
from pathlib import Path

import pytest
from transformers import AutoTokenizer

SMALL = Path(__file__).parents[1] / "data" / "bpe_small"
REAL = Path(os.environ.get("FORAGE_TOKENIZERS", "/nonexistent"))
FAMILIES = ("qwen2.5", "qwen3", "llama3", "llama2", "gpt2")


@pytest.fixture(
    scope="session",
    params=[SMALL, *(REAL / name for name in FAMILIES if (REAL / name).is_dir())],
    ids=lambda path: path.name,
)
def tokenizer(request):
    """The small BPE of the test data, and the real ones that lie in the folder that FORAGE_TOKENIZERS names."""
    return AutoTokenizer.from_pretrained(request.param)
