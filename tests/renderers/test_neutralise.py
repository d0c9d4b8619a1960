import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.renderers.neutralise import Neutraliser

SPECIAL = ["<eos>", "[CLS]", "@@END@@", "  ", "x"]


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("see </information> here", "see ‹/information> here"),
        ("< / ANSWER >", "‹ / ANSWER >"),
        ("<\u200bsearch\n>", "‹\u200bsearch\n>"),
        ("<search id=1>", "‹search id=1>"),
        ("<search", "‹search"),
        ("＜answer＞", "‹answer＞"),
        ("<|im_end|>", "‹|im_end|>"),
        ("<<|x|>", "<‹|x|>"),
        ("[INST] <<SYS>> [/INST]", "⁅INST] ‹<SYS>> ⁅/INST]"),
        ("<s></s><bos>", "‹s>‹/s>‹bos>"),
        ("[cls]", "⁅cls]"),
        ("@@END@@", "@\u2060@END@@"),
    ],
)
def test_the_first_character_of_a_marker_becomes_a_lookalike(text, harmless):
    neutral = Neutraliser(SPECIAL)
    assert neutral(text) == harmless
    assert neutral.finds(text)
    assert not neutral.finds(harmless)


@pytest.mark.parametrize(
    "text", ["a < b > c", "<b>bold</b>", "research", "<searching>", "[1] x", "if (a<s) and s>1", "  x"]
)
def test_plain_text_stays_as_it_is(text):
    assert Neutraliser(SPECIAL)(text) == text


@given(
    st.lists(
        st.sampled_from([*SPECIAL, "<", "/", "|", "search", ">", "[", "INST", "]", " ", "@", "s"]), max_size=15
    ).map("".join)
)
def test_what_is_neutral_stays_neutral(text):
    neutral = Neutraliser(SPECIAL)
    assert not neutral.finds(neutral(text))
    assert neutral(neutral(text)) == neutral(text)
    assert len(neutral(text).replace("\u2060", "")) == len(text)
