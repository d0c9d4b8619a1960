import pytest

from forage.errors import ConfigError
from forage.renderers.tags import TagRenderer
from forage.renderers.template import fill, load_template
from forage.testing import ByteTokenizer

GOOD = {
    "prompt": '"{question}"',
    "found": '"<information>{passages}</information>"',
    "passage": '"{title} {text}"',
    "retry": '"again"',
}


def written(tmp_path, more="", **changed):
    path = tmp_path / "own.toml"
    lines = [f"{key} = {value}" for key, value in {**GOOD, **changed}.items() if value]
    path.write_text("\n".join(lines) + "\n" + more)
    return str(path)


def test_what_is_filled_in_is_not_filled_again():
    assert fill("{a} {b} {c}", a="{b}", b="x") == "{b} x {c}"


def test_other_braces_are_plain_text(tmp_path):
    assert load_template(written(tmp_path, prompt='\'{"q": "{question}"}\'')).prompt == '{"q": "{question}"}'


@pytest.mark.parametrize(
    ("more", "changed", "message"),
    [
        ('promt = "x"', {}, r"own.toml: unknown key 'promt'; did you mean 'prompt'\?"),
        ("", {"retry": ""}, "'retry' is missing"),
        ("", {"retry": "3"}, "retry must be a string"),
        ("", {"prompt": '"Question"'}, r"prompt must hold \{question\} exactly once"),
        ("", {"found": '"<information></information>"'}, r"found must hold \{passages\}"),
        ("", {"passage": '"{title}"'}, r"passage must hold \{text\}"),
        ('[notes]\n0 = "now"', {}, r"found must hold \{note\}"),
        ('[notes]\nzero = "now"', {}, "'zero' must be a number"),
        ("[notes]\n0 = 1", {}, "table of strings"),
        ("= 3", {}, "not a TOML file"),
    ],
)
def test_a_template_that_can_not_be_used_is_refused(tmp_path, more, changed, message):
    with pytest.raises(ConfigError, match=message):
        load_template(written(tmp_path, more, **changed))


def test_an_unknown_name_lists_what_is_shipped():
    with pytest.raises(ConfigError, match="neither a file nor one of default, reason, short"):
        load_template("long")


@pytest.mark.parametrize("layout", ["<search>{text}", "<|im_start|>{text}", "[INST] {text}"])
def test_a_passage_layout_with_a_marker_is_refused(tmp_path, layout):
    with pytest.raises(ConfigError, match="no tag or marker"):
        TagRenderer(ByteTokenizer(), template=written(tmp_path, passage=f'"{layout}"'))


@pytest.mark.parametrize("text", ["prompt", "found", "passage", "retry"])
def test_reasoning_alone_speaks_of_no_search(text):
    assert "search" not in getattr(load_template("reason"), text).lower()
    assert not any("search" in note.lower() for note in load_template("reason").notes.values())


def test_the_prompt_of_reasoning_alone_asks_the_question():
    renderer = TagRenderer(ByteTokenizer(), template="reason")
    prompt = ByteTokenizer().decode(renderer.prompt("Where is Rome?"))
    assert prompt.rstrip().endswith("Question: Where is Rome?")
    assert "<answer>" in prompt
    assert "</answer>" not in prompt
