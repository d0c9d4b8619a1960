import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from forage.engines.stopping import Stops
from forage.testing import ByteTokenizer
from forage.types import Finish, Stop

BPE = AutoTokenizer.from_pretrained(Path(__file__).parents[1] / "data" / "bpe_small")


def sentencepiece_like():
    """A vocabulary with word-initial ▁ and bytes to fall back on, decoded as Llama 2 decodes."""
    pieces = [
        "<unk>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁<",
        "/",
        "search",
        ">",
        "▁>",
        "a",
        "▁b",
    ]
    inner = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


def ends_at(tokenizer, stop, tokens):
    """How many tokens a turn has that goes on with `tokens` until it is over, and why; as the engine asks."""
    stops = Stops(tokenizer, 1100, torch.device("cpu"))
    rule = stops.rule(stop)
    for n in range(1, len(tokens) + 1):
        if stops.watched[rule.number, tokens[n - 1]]:
            finish = stops.ended(rule, tokens[:n])
            if finish:
                return n, finish
    return None


def expected(tokenizer, stop, tokens):
    """The same, by decoding all of the turn after every token."""
    for n in range(1, len(tokens) + 1):
        if tokens[n - 1] in stop.token_ids:
            return n, Finish.EOS
        text = tokenizer.decode(tokens[:n], skip_special_tokens=False)
        if any(string in text for string in stop.strings):
            return n, Finish.STOP
    return None


def test_a_stop_string_split_over_tokens():
    tokens = list(b"hm </search> and more")
    assert ends_at(ByteTokenizer(), Stop(("</search>",)), tokens) == (12, Finish.STOP)


def test_a_token_that_holds_more_than_the_end_is_kept_whole():
    token = BPE.encode(">\n", add_special_tokens=False)
    assert len(token) == 1, "the small BPE merges > with a line break"
    tokens = [*BPE.encode("x </search", add_special_tokens=False), *token]
    assert ends_at(BPE, Stop(("</search>",)), [*tokens, *tokens]) == (len(tokens), Finish.STOP)


def test_end_tokens_need_no_strings():
    assert ends_at(ByteTokenizer(), Stop(token_ids=(256,)), [1, 2, 256, 3]) == (3, Finish.EOS)
    assert ends_at(ByteTokenizer(), Stop(), [1, 2, 256, 3]) is None


def test_a_character_cut_into_bytes_is_seen_when_its_last_byte_comes():
    tokens = list("so 終”..".encode())
    assert ends_at(ByteTokenizer(), Stop(("終”",)), tokens) == (9, Finish.STOP)


def test_a_stop_string_that_begins_and_ends_with_a_space():
    tokenizer = sentencepiece_like()
    tokens = tokenizer.convert_tokens_to_ids(["a", "a", "▁b", "▁b", "a", "▁", "a"])
    assert ends_at(tokenizer, Stop((" ba ",)), tokens) == (6, Finish.STOP)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="empty stop string"):
        Stops(ByteTokenizer(), 300, torch.device("cpu")).rule(Stop(("",)))


def test_each_rule_watches_its_own_tokens():
    stops = Stops(ByteTokenizer(), 257, torch.device("cpu"))
    first, second = stops.rule(Stop(("b",))), stops.rule(Stop(("c",), (5,)))
    assert stops.rule(Stop(("b",))) is first
    assert stops.ended(first, [99]) is None
    assert stops.ended(second, [99]) is Finish.STOP
    rules = torch.tensor([first.number, second.number, first.number, second.number])
    assert stops.watched[rules, torch.tensor([99, 99, 98, 5])].tolist() == [False, True, True, True]


TOKENIZERS = {"bytes": (ByteTokenizer(), 257), "bpe": (BPE, len(BPE)), "sentencepiece": (sentencepiece_like(), 266)}


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(sorted(TOKENIZERS)), seed=st.integers(0, 10**6), length=st.integers(1, 3))
def test_any_stop_string_is_found_as_soon_as_decoding_everything_finds_it(kind, seed, length):
    tokenizer, vocab = TOKENIZERS[kind]
    rng = random.Random(seed)
    few = rng.choices(range(vocab), k=6)  # few tokens, often repeated, so that stop strings occur
    tokens = rng.choices(few, k=60)
    text = tokenizer.decode(tokens, skip_special_tokens=False).replace("\ufffd", "")
    start = rng.randrange(max(1, len(text) - length))
    stop = Stop(tuple({text[start : start + length] or "x", "</search>"}), token_ids=(vocab - 1,))
    assert ends_at(tokenizer, stop, tokens) == expected(tokenizer, stop, tokens)
