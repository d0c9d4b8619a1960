"""Writes tests/data/bpe_small: a byte-level BPE of 1,024 entries that merges as the large ones do.

    python tests/make_bpe.py

It splits text like Qwen2.5 and is trained on the sample of HotpotQA beside it and on tags, so that `</`, `search` and
`>.\\n` are one token each: no tag has a token of its own, and the `>` of a closing tag is swallowed by what follows.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

DATA = Path(__file__).parent / "data"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def texts() -> list[str]:
    rows = [json.loads(line) for line in (DATA / "hotpotqa_sample" / "corpus.jsonl").read_text().splitlines()]
    tags = ["think", "search", "information", "answer"]
    # Closing tags only, so that an opening one is three tokens, as it is in the large vocabularies.
    turns = [f"{tag} </{tag}>{end}" for tag in tags for end in ("", ".\n", "\n\n", "\n", ".", ")") for _ in range(40)]
    return [f"Question: {row['title']}?\n{row['text']}" for row in rows] + turns


def main() -> None:
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1020, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts(), trainer)
    bpe.add_special_tokens(SPECIAL)
    bpe.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    folder = DATA / "bpe_small"
    folder.mkdir(exist_ok=True)
    bpe.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 32768,
        "chat_template": CHAT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    main()
