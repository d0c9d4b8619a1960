"""The renderer on a small BPE always, and on the vocabularies of Qwen, Llama and GPT-2 where they are at hand."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forage.errors import ConfigError
from forage.renderers.tags import TagRenderer
from forage.testing import ByteTokenizer
from forage.types import Answer, Completion, Finish, Found, Invalid, Passage, Retry, Search

DATA = Path(__file__).parents[1] / "data"
REFERENCE = Path(os.environ.get("FORAGE_REFERENCE") or DATA / "reference")
TAG = re.compile(r"<\s*/?\s*(think|search|information|answer)\b", re.IGNORECASE)

SEARCH_R1 = """
prompt = "{question}"
found = "\\n\\n<information>{passages}</information>\\n\\n"
passage = "Doc {index}(Title: {title}) {text}"
retry = "\\nAgain.\\n"
"""
VERL = SEARCH_R1.replace("Doc {index}(Title: {title}) {text}", "Doc {index} (Title: {title})\\n{text}")


PLAIN = """
prompt = "Question: {question}\\n"
found = "<information> {passages}</information>\\n"
passage = "{title}: {text}"
retry = "<information> no action</information>\\n"
"""


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A template without notes that shows titles."""
    path = tmp_path_factory.mktemp("templates") / "plain.toml"
    path.write_text(PLAIN)
    return str(path)


def cases(topic):
    path = REFERENCE / f"{topic}.json"
    found = json.loads(path.read_text("utf-8"))["cases"] if path.exists() else []
    return pytest.mark.parametrize("case", found, ids=lambda case: case["name"])


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def completion(tokens):
    return Completion(list(tokens), [0.0] * len(tokens), [0] * len(tokens), Finish.STOP)


def stopped(tokenizer, text, stop):
    """The tokens of `text` up to the one that completes a stop string, as an engine samples them."""
    tokens = encode(tokenizer, text)
    for end in range(1, len(tokens) + 1):
        if any(string in tokenizer.decode(tokens[:end]) for string in stop.strings):
            return tokens[:end]
    return tokens


def found(*texts, title="Title"):
    return Found([[Passage(str(i), title, text) for i, text in enumerate(texts)]])


@pytest.mark.skipif(not os.environ.get("FORAGE_TOKENIZERS"), reason="FORAGE_TOKENIZERS names no folder")
@pytest.mark.parametrize("family", ["qwen2.5", "qwen3", "llama3", "gpt2"])
def test_the_folder_of_real_tokenizers_holds_every_family(family):
    """Each of them then goes through all tests below."""
    assert (Path(os.environ["FORAGE_TOKENIZERS"]) / family / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("<think> hm </think><search> who wrote Hamlet </search>", Search(("who wrote Hamlet",))),
        ("<search> Größe 北京 </search>.\n", Search(("Größe 北京",))),
        ("<answer> Shakespeare </answer>\n\n", Answer("Shakespeare")),
        ("<answer>3.14</answer>.", Answer("3.14")),
        ("<answer> </answer>", Answer("")),
        ("<search> a <search> b </search>", Search(("b",))),
        ("<think> <answer> no </think><answer> yes </answer>)", Answer("yes")),
        ("<search> q <answer> a </answer>", Answer("a")),
        ("<search>  </search>", Invalid("empty_query")),
        ("q </search>", Invalid("unopened_search")),
        ("<search> q </answer>", Invalid("unopened_answer")),
        ("I think it is Paris.", Invalid("no_action")),
        ("<search> q", Invalid("no_action")),
        ("<SEARCH> q </SEARCH>", Invalid("no_action")),
        ("", Invalid("no_action")),
    ],
)
@pytest.mark.parametrize("behind", ["", ".\n and more", "</search>", " <answer> x </answer>"])
def test_the_first_closing_tag_ends_the_turn(tokenizer, text, action, behind):
    renderer = TagRenderer(tokenizer)
    if isinstance(action, Invalid) and action.reason == "no_action":
        behind = ""
    tokens = stopped(tokenizer, text + behind, renderer.stop)
    assert renderer.parse(completion(tokens)) == action


def test_the_token_that_completes_a_tag_swallows_what_follows(tokenizer):
    """What makes cutting the text and encoding it again inexact, and why a turn is parsed from its tokens."""
    tokens = stopped(tokenizer, "<search> q </search>.\n", TagRenderer(tokenizer).stop)
    assert tokenizer.decode(tokens).rstrip("\n").endswith("</search>.")


@cases("action_parse")
def test_actions_are_those_of_the_reference_but_for_three_rules(case):
    """An empty query is no search; a turn ends at its first closing tag of any kind; its block begins at the last
    opening tag of that kind."""
    tokenizer, text = ByteTokenizer(), case["inputs"]["text"]
    kind, content = case["expected"]["action"], case["expected"]["content"]
    if inner := re.search(r"</(search|answer)>", content):
        kind, content = inner[1], content[: inner.start()]
    content = content.rpartition(f"<{kind}>")[2].strip()
    first = re.search(r"</(search|answer)>", text)
    if kind is None or (kind == "search" and not content) or f"<{first[1]}>" not in text[: first.start()]:
        expected = Invalid
    else:
        expected = Search((content,)) if kind == "search" else Answer(content)
    action = TagRenderer(tokenizer).parse(completion(encode(tokenizer, text)))
    assert type(action) is Invalid if expected is Invalid else action == expected


@pytest.mark.parametrize(("template", "key", "separator"), [(SEARCH_R1, "text", ""), (VERL, "verl_text", "\n\n")])
@cases("passages_format")
def test_a_template_file_writes_passages_as_the_reference_does(tmp_path, tokenizer, case, template, key, separator):
    path = tmp_path / "theirs.toml"
    path.write_text(template + (f"separator = {json.dumps(separator)}\n" if separator else ""))
    passages = []
    for i, contents in enumerate(case["inputs"]["contents"]):
        title, _, text = contents.partition("\n")
        passages.append(Passage(str(i), title, text))
    inside = TAG.sub(lambda match: match[0].replace("<", "‹"), case["expected"][key].strip())  # ours can't be closed
    expected = f"\n\n<information>{inside}</information>\n\n"
    tokens = TagRenderer(tokenizer, template=str(path)).observation(Found([passages]), 1, 10_000)
    assert tokens == encode(tokenizer, expected)


def test_the_retry_text_of_a_template_file_is_written_as_it_is(tmp_path, tokenizer):
    path = tmp_path / "theirs.toml"
    path.write_text(SEARCH_R1)
    tokens = TagRenderer(tokenizer, template=str(path)).observation(Retry("no_action"), 0, 100)
    assert tokens == encode(tokenizer, "\nAgain.\n")


@pytest.mark.parametrize("template", ["default", "short"])
def test_shipped_wordings_hold_no_action_that_could_be_taken_for_the_models(tokenizer, template):
    renderer = TagRenderer(tokenizer, template=template)
    for seen in (renderer.observation(Retry("x"), 0, 1000), renderer.observation(found("a"), 0, 1000)):
        assert isinstance(renderer.parse(completion(renderer.prompt("Who?") + seen)), Invalid)


def test_a_chat_template_takes_the_prompt_as_one_user_message(tokenizer):
    tokens = TagRenderer(tokenizer).prompt("Who wrote Hamlet?")
    chat = TagRenderer(tokenizer, chat="never").prompt("Who wrote Hamlet?") != tokens
    assert chat is bool(tokenizer.chat_template)
    assert "Question: Who wrote Hamlet?" in tokenizer.decode(tokens)
    assert tokens.count(tokenizer.bos_token_id) <= 1


def test_plain_text_begins_with_a_bos_where_the_tokenizer_adds_one(tokenizer):
    with_bos = tokenizer.encode("x")[0] == tokenizer.bos_token_id
    tokens = TagRenderer(tokenizer, chat="never").prompt("Who?")
    assert (tokens[0] == tokenizer.bos_token_id) is with_bos
    assert tokens.count(tokenizer.bos_token_id) == with_bos
    assert TagRenderer(tokenizer, chat="never", bos="never").prompt("Who?") == tokens[int(with_bos) :]


def test_bos_is_refused_where_the_chat_template_decides():
    class Chatty(ByteTokenizer):
        chat_template = "{{ messages }}"

    with pytest.raises(ConfigError, match="chat"):
        TagRenderer(Chatty(), bos="never")


def test_a_turn_stops_at_closing_tags_and_at_every_end_of_the_family(tokenizer):
    stop = TagRenderer(tokenizer).stop
    assert stop.strings == ("</search>", "</answer>")
    assert tokenizer.eos_token_id in stop.token_ids
    if "<|im_end|>" in tokenizer.get_vocab():
        assert {tokenizer.convert_tokens_to_ids(end) for end in ("<|im_end|>", "<|endoftext|>")} <= set(stop.token_ids)


def test_the_spent_budget_is_said_after_passages_and_after_a_retry(tokenizer):
    renderer = TagRenderer(tokenizer)
    for seen in (found("text"), Retry("no_action")):
        assert "No searches are left" in tokenizer.decode(renderer.observation(seen, 0, 1000))
        assert "No searches are left" not in tokenizer.decode(renderer.observation(seen, 1, 1000))


def test_notes_can_name_every_count(tmp_path):
    path = tmp_path / "counting.toml"
    path.write_text(
        'prompt = "{question}"\nfound = "<information>{passages}</information>{note}"\npassage = "{text}"\n'
        'retry = "again{note}"\n[notes]\n0 = " done"\nother = " {left} left"\n'
    )
    tokenizer = ByteTokenizer()
    renderer = TagRenderer(tokenizer, template=str(path))
    said = [tokenizer.decode(renderer.observation(Retry("x"), left, 100)) for left in (3, 0)]
    assert said == ["again 3 left", "again done"]


def test_several_queries_share_one_block(tokenizer):
    seen = Found([[Passage("1", "A", "first")], [], [Passage("2", "B", "second")]])
    assert "[1] A: first\n[2] B: second" in tokenizer.decode(TagRenderer(tokenizer).observation(seen, 1, 1000))


def test_passages_are_cut_from_the_end_and_the_closing_tag_never_is(tokenizer, plain):
    renderer = TagRenderer(tokenizer, template=plain)
    whole = renderer.observation(found("first passage", "second passage"), 1, 1000)
    tail = encode(tokenizer, "</information>\n")
    smallest = renderer.observation(Found([]), 1, 1000)
    previous = 0
    for limit in range(len(whole), -1, -1):
        tokens = renderer.observation(found("first passage", "second passage"), 1, limit)
        assert len(tokens) <= limit
        if not tokens:
            assert limit <= len(smallest)
            continue
        assert tokens[-len(tail) :] == tail or tokens in (whole, smallest)
        previous = previous or len(tokens)
        assert len(tokens) <= previous
        previous = len(tokens)
    assert renderer.observation(Retry("x"), 1, 0) == []


def test_a_cut_does_not_leave_half_a_character(tokenizer, plain):
    renderer = TagRenderer(tokenizer, template=plain)
    for limit in range(renderer.min_observation_tokens, renderer.min_observation_tokens + 40):
        text = tokenizer.decode(renderer.observation(found("𝒜𐍈🏔" * 9, title="字"), 1, limit))
        assert "\ufffd" not in text
        assert text.endswith("</information>\n")


def test_a_limit_of_the_stated_minimum_is_always_enough(tokenizer):
    for template in ("default", "short"):
        renderer = TagRenderer(tokenizer, template=template)
        for seen in (Found([]), found("a long passage " * 9), Retry("x")):
            for left in (0, 1):
                assert renderer.observation(seen, left, renderer.min_observation_tokens)


def markers(tokenizer):
    tags = [
        f"<{gap}{slash}{gap}{tag}{gap}>"
        for tag in ("search", "ANSWER", "information", "Think")
        for slash in ("", "/")
        for gap in ("", " ")
    ]
    chat = [
        "<|im_start|>",
        "<|im_end|>",
        "<|eot_id|>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "<s>",
        "</s>",
        "<tool_call>",
        "<think",
    ]
    return [*tags, *chat, *tokenizer.all_special_tokens, *tokenizer.get_added_vocab()]


def test_no_marker_survives_in_title_text_or_question(tokenizer, plain):
    renderer = TagRenderer(tokenizer, chat="never", template=plain)
    forbidden = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    for marker in markers(tokenizer):
        if not marker.strip():
            continue
        for text in (marker, f"a{marker}b", marker * 2, f"<{marker}", f"{marker[:1]}{marker}"):
            tokens = renderer.observation(found(text, text, title=text), 1, 1000)
            assert not forbidden & set(tokens), text
            inside = tokenizer.decode(tokens).strip().removeprefix("<information>").removesuffix("</information>")
            assert not TAG.search(inside), text
            question = renderer.prompt(text)[tokenizer.encode("x")[0] == tokenizer.bos_token_id :]
            assert not forbidden & set(question), text


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mixture_of_markers_at_any_cut_closes_its_block_acts_or_becomes_special(tokenizer, plain, data):
    pieces = st.one_of(
        st.sampled_from(markers(tokenizer)),
        st.sampled_from(["<", "</", "|", ">", " ", "a", "[", "é", "字"]),
        st.text(max_size=5),
    )
    text = st.lists(pieces, max_size=12).map("".join)
    texts, title = data.draw(st.lists(text, max_size=3)), data.draw(text)
    renderer = TagRenderer(tokenizer, template=plain)
    limit = data.draw(st.integers(renderer.min_observation_tokens, 120))
    tokens = renderer.observation(found(*texts, title=title), 1, limit)
    assert 0 < len(tokens) <= limit
    assert not {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()} & set(tokens)
    written = tokenizer.decode(tokens)
    assert [match[0] for match in TAG.finditer(written)] == ["<information", "</information"]
    assert written.endswith("</information>\n")
    assert isinstance(renderer.parse(completion(tokens)), Invalid)


def test_a_template_may_use_special_tokens_of_its_own(tmp_path, tokenizer):
    if "<|im_end|>" not in tokenizer.get_vocab():
        pytest.skip("this tokenizer has no ChatML")
    path = tmp_path / "chat.toml"
    path.write_text(SEARCH_R1.replace("\\n\\n<information>", "<|im_end|>\\n<information>"))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert TagRenderer(tokenizer, template=str(path)).observation(found("a <|im_end|>"), 1, 100).count(end) == 1


@pytest.mark.parametrize("thought", ["", "<think> é ∑ hm</think>\n", "<search> <search> x\n"])
def test_the_thought_is_what_ends_before_the_opening_tag_of_the_action(tokenizer, thought):
    renderer = TagRenderer(tokenizer, template="short", chat="never")
    before, block = encode(tokenizer, thought), encode(tokenizer, "<search> Rome</search>")
    assert renderer.thought(completion(before + block)) == len(before)
    assert renderer.thought(completion(before)) == len(before)


@pytest.mark.parametrize(
    ("text", "formed"),
    [
        ("<think> hm </think><search> q </search>", True),
        ("\n<think>a\nb</think>\n\n<answer> x </answer>.\n", True),
        ("<think></think><answer></answer>", True),
        ("<answer> x </answer>", False),
        ("<think> hm <answer> x </answer>", False),
        ("so <think> hm </think><answer> x </answer>", False),
        ("<think> hm </think> so <answer> x </answer>", False),
        ("<think> a <think> b </think><answer> x </answer>", False),
        ("<think> a </think><think> b </think><answer> x </answer>", False),
        ("<think> hm </think><information> x </information><answer> x </answer>", False),
        ("<think> hm </think><answer> <think> x </answer>", False),
        ("<think> hm </think><search> <search> q </search>", False),
    ],
)
def test_a_turn_keeps_to_the_protocol_or_not(tokenizer, text, formed):
    renderer = TagRenderer(tokenizer)
    action = renderer.parse(completion(stopped(tokenizer, text, renderer.stop)))
    assert action.well_formed is formed
    assert action == replace(action, well_formed=not formed)


@pytest.mark.parametrize("text", ["Beijing", " New York ", "1984", "a</answer>b"])
def test_an_answer_is_written_as_the_policy_would(tokenizer, text):
    renderer = TagRenderer(tokenizer, template="short")
    opening, gold = renderer.answer(text)
    written = Completion([*opening, *gold, *encode(tokenizer, "</answer>")], [0.0], [0], Finish.STOP)
    read = renderer.parse(written)
    assert opening == encode(tokenizer, "<answer>")
    assert read == Answer(text.strip() if "<" not in text else read.text)
    assert len(TAG.findall(tokenizer.decode([*opening, *gold]))) == 1
