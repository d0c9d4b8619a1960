"""The small model of the demo: a tokenizer that splits invented names into syllables, and a four-layer Qwen2.

The tokenizer is a byte-level BPE whose merges are laid out by hand. Syllables (consonant, vowel) come first, so that
a name never seen before is still a sequence of known tokens; then the words of the fictional world. A word's merges
all start at its leading space, so that they can't join two syllables inside a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from forage.datasets.lexicon import EXTRAS, FRAMES, GOODS, KINDS, PERSON_FRAMES, SUFFIXES, SYLLABLES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

TAGS = [f"<{slash}{name}>" for name in ("think", "search", "information", "answer") for slash in ("", "/")]
EOS = "<|end|>"
SPACE = "Ġ"  # how byte-level BPEs write a space
EXTRA_WORDS = (
    "Question First then Next and Let me look it up Good enough Hmm what about this now no result action try again"
    " answer searches left Search"
)


def _words() -> list[str]:
    """Every word of the fictional world's passages and questions, in order of first use."""
    texts = [*FRAMES, *PERSON_FRAMES, *GOODS, EXTRA_WORDS]
    texts += [suffix for suffixes in SUFFIXES.values() for suffix in suffixes]
    texts += [phrase for phrases in EXTRAS.values() for phrase in phrases]
    for relations in KINDS.values():
        for relation in relations:
            texts += [relation.name, *relation.stated, *relation.asked]
    words = " ".join(texts).replace("{x}", " ").replace("{np}", " ").replace("{}", " ")
    return list(dict.fromkeys("".join(c if c.isalpha() else " " for c in words).split()))


def _chain(pieces: list[str]) -> list[tuple[str, str]]:
    """Merges that join `pieces` from the left."""
    merges, joined = [], pieces[0]
    for piece in pieces[1:]:
        merges.append((joined, piece))
        joined += piece
    return merges


def _pieces(word: str) -> list[str]:
    """`word` after the syllable merges."""
    pieces, i = [], 0
    while i < len(word):
        size = 2 if word[i : i + 2].lower() in SYLLABLES and word[i + 1 : i + 2].islower() else 1
        pieces.append(word[i : i + size])
        i += size
    return pieces


def syllable_tokenizer() -> PreTrainedTokenizerFast:
    """The demo's tokenizer: bytes, syllables, and the words of the fictional world."""
    merges = [(form[0], form[1]) for s in SYLLABLES for form in (s, s.capitalize())]
    merges += [(SPACE, s.capitalize()) for s in SYLLABLES]
    for word in _words():
        merges += _chain([SPACE, *_pieces(word)])
    merges += _chain(_pieces("Question"))
    merges = list(dict.fromkeys(merges))
    entries = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges)]
    vocab = {entry: i for i, entry in enumerate(dict.fromkeys(entries))}
    return _wrap(Tokenizer(models.BPE(vocab=vocab, merges=merges)))


def trained_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocabulary` entries learned from `texts`, for small models on other corpora."""
    from tokenizers import trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TAGS) - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrap(tokenizer)


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    tokenizer.add_special_tokens([AddedToken(EOS, normalized=False, special=True)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=EOS, clean_up_tokenization_spaces=False
    )


def small_model(
    tokenizer: Any, *, hidden: int = 128, layers: int = 4, heads: int = 4, seed: int = 0
) -> Qwen2ForCausalLM:
    """A randomly initialised Qwen2 of `layers` x `hidden`, its first layer's heads biased to look back.

    Looking at the token before is the first half of copying. Through RoPE a constant query and key (Qwen2's biases)
    score a distance alone, so that two heads start out looking one and two tokens back.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for head in range(min(2, config.num_key_value_heads)):
            _look_back(model.model.layers[0].self_attn, head, distance=head + 1)
    return model


def _look_back(attention: Any, head: int, distance: int) -> None:
    """Bias key-value head `head` and the first query head of its group to attend `distance` tokens back."""
    import torch

    size, config = attention.head_dim, attention.config
    half, strength = size // 2, 5.0
    sharp = min(4, half)  # only the fastest frequencies tell neighbours apart
    angles = distance * config.rope_parameters["rope_theta"] ** (-torch.arange(sharp) / half)
    query = head * (config.num_attention_heads // config.num_key_value_heads)
    key_bias = attention.k_proj.bias[head * size :]
    query_bias = attention.q_proj.bias[query * size :]
    key_bias[:sharp] = strength
    query_bias[:sharp] = strength * torch.cos(angles)
    query_bias[half : half + sharp] = -strength * torch.sin(angles)
