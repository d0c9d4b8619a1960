"""A harvest written and read is the harvest, to the last bit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.errors import CheckpointError
from forage.sources.stored import read_harvest, write_harvest
from forage.types import (
    Answer,
    Group,
    Harvest,
    Invalid,
    Passage,
    Question,
    Scores,
    Search,
    StopReason,
    Trajectory,
    Turn,
)

number = st.floats(allow_nan=False)
text = st.text(st.characters(), max_size=9)  # half a surrogate pair included
actions = st.one_of(
    st.builds(Search, st.lists(text, min_size=1, max_size=2).map(tuple), st.booleans()),
    st.builds(Answer, text, st.booleans()),
    st.builds(Invalid, text),
)
passages = st.lists(st.builds(Passage, text, text, text, number), max_size=2)
turns = st.builds(Turn, actions, st.one_of(st.just(()), st.lists(passages, min_size=1, max_size=2)))
asked = st.builds(Question, text, text, st.tuples(text), text, st.one_of(st.none(), st.integers(1, 3)), st.tuples(text))
rows = st.builds(
    Trajectory,
    asked,
    text,
    st.integers(0, 9),
    logprobs=st.lists(number, max_size=3),
    versions=st.lists(st.integers(-1, 9), max_size=3),
    turns=st.lists(turns, max_size=3),
    stop=st.sampled_from(StopReason),
    failure=text,
)
scores = st.builds(
    Scores, number, st.dictionaries(text, number, max_size=2), st.dictionaries(st.integers(0, 3), number, max_size=2)
)
groups = st.lists(
    st.builds(Group, st.lists(rows, max_size=2), st.lists(scores, max_size=2), st.one_of(st.none(), number)), max_size=2
)
harvests = st.builds(
    Harvest, groups, groups, groups, st.lists(rows, max_size=1), *[st.integers(0, 9)] * 4, number, number
)


@given(harvests)
def test_what_is_read_is_what_was_written(tmp_path_factory, harvest):
    path = tmp_path_factory.mktemp("stored") / "harvest.json.zst"
    write_harvest(path, harvest)
    again = read_harvest(path)
    assert again == harvest
    assert repr(again) == repr(harvest)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "harvest.json.zst"
    write_harvest(path, Harvest([]))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"harvest\.json\.zst"):
        read_harvest(path)
