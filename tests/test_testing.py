import asyncio

import pytest

from forage.errors import RetrieverError
from forage.testing import ByteTokenizer, DictionaryRetriever, ScriptedEngine
from forage.types import Finish, Passage, Sampling, Stop

TOKENIZER = ByteTokenizer()
STOP = Stop(("</search>", "</answer>"), (256,))


def turns(engine, *limits, context="Q", group="g", on_token=None):
    async def main():
        async with engine.session(group) as session:
            return [
                await session.generate(TOKENIZER.encode(context), Sampling(limit, stop=STOP), on_token)
                for limit in limits
            ]

    return asyncio.run(main())


def test_bytes_come_back_as_text():
    tokens = TOKENIZER.encode("Größe <eos>")
    assert TOKENIZER.decode(tokens) == "Größe <eos>"
    assert 256 not in tokens
    assert TOKENIZER.decode([65, 256]) == "A<eos>"
    assert TOKENIZER.decode([65, 256], skip_special_tokens=True) == "A"


@pytest.mark.parametrize(
    ("text", "limit", "said", "finish"),
    [
        ("<search> a </search> and more", 100, "<search> a </search>", Finish.STOP),
        ("nothing", 100, "nothing<eos>", Finish.EOS),
        ("nothing", 7, "nothing", Finish.LENGTH),
        ("<search> a </search>", 4, "<sea", Finish.LENGTH),
    ],
)
def test_a_scripted_turn_ends_as_a_decoded_one_would(text, limit, said, finish):
    (completion,) = turns(ScriptedEngine([text], TOKENIZER), limit)
    assert TOKENIZER.decode(completion.tokens) == said
    assert completion.finish is finish
    assert completion.logprobs == [-0.5] * len(completion.tokens)
    assert set(completion.versions) == {0}


def test_every_session_begins_the_script_anew_and_weights_set_the_version():
    engine = ScriptedEngine(["a</answer>", "b</answer>"], TOKENIZER)
    streamed = []
    engine.load_weights([], 3)
    for group in ("x", "y"):
        first, second = turns(engine, 20, 20, group=group, on_token=streamed.append)
        assert (first.tokens[0], second.tokens[0]) == (ord("a"), ord("b"))
        assert first.versions[0] == 3
    assert engine.sessions == ["x", "y"]
    assert TOKENIZER.decode(streamed) == "a</answer>b</answer>" * 2
    assert engine.take_stats() == {}


def test_a_script_may_look_at_the_context():
    engine = ScriptedEngine(lambda context, turn: f"{context}{turn}</answer>", TOKENIZER)
    assert [TOKENIZER.decode(turn.tokens) for turn in turns(engine, 20, 20, context="Q")] == [
        "Q0</answer>",
        "Q1</answer>",
    ]


def test_the_dictionary_answers_fails_or_raises_as_it_says():
    passage, down = Passage("1", "T", "x"), RetrieverError("down")
    retriever = DictionaryRetriever({"a": [passage, passage], "down": down, "bug": ValueError("bug")})
    assert asyncio.run(retriever.search(["a", "down", "else"], 1)) == [[passage], down, []]
    with pytest.raises(ValueError, match="bug"):
        asyncio.run(retriever.search(["bug"], 1))
    assert retriever.calls == [["a", "down", "else"], ["bug"]]
