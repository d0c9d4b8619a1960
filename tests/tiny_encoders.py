"""Small random text encoders in folders, and encoders without a model."""

import json

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "tower", "river", "the", "of", "query", "passage", ":"]


def tokenizer():
    inner = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def bert(folder, seed=0, size=16, with_tokenizer=True):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    model = BertModel(config).eval()
    model.save_pretrained(folder)
    if with_tokenizer:
        tokenizer().save_pretrained(folder)
    return model


def sentence_files(folder, *, pooling="mean_tokens", normalise=True, prompts=None, more=(), **said):
    """What sentence-transformers writes beside a model."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")] + ([("2_Normalize", "Normalize")] if normalise else [])
    rows = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in (*modules, *more)]
    (folder / "modules.json").write_text(json.dumps(rows))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {
        f"pooling_mode_{name}": name == pooling for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **modes}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts or {}, **said}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24}))


class Lengths:
    """Texts of the same length have the same vector.

    Args:
        fails: for what the encoder gives something that is no vector.
    """

    dimensions = 4

    def __init__(self, *, fails: str = "") -> None:
        self._fails = fails

    def encode_queries(self, texts):
        vectors = self.encode_passages(texts)
        if self._fails == "finite":
            vectors[-1, 0] = np.nan
        return vectors[:, :3] if self._fails == "shape" else vectors

    def encode_passages(self, texts):
        sizes = np.array([len(text) for text in texts], np.float32)
        return np.stack([np.cos(sizes), np.sin(sizes), np.ones_like(sizes), np.zeros_like(sizes)], 1)


class Numbers:
    """A text is the numbers of its vector."""

    dimensions = 16

    def encode_queries(self, texts):
        return np.array([[float(number) for number in text.split()] for text in texts], np.float32).reshape(-1, 16)

    encode_passages = encode_queries
