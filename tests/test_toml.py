"""TOML out and in again, and words of a command line."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.toml import dump_key, dump_value, flatten, literal, nest

scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
keys = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=8)


@given(values)
def test_a_value_comes_back_as_it_was(value):
    assert tomllib.loads(f"value = {dump_value(value)}") == {"value": value}


@given(keys)
def test_a_key_comes_back_as_it_was(key):
    assert tomllib.loads(f"{dump_key(key)} = 1") == {key: 1}


def test_toml_has_no_null():
    with pytest.raises(TypeError, match="NoneType"):
        dump_value([None])


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("3", 3),
        ("1e-6", 1e-6),
        (".5", 0.5),
        ("true", True),
        ("[0.9, 0.95]", [0.9, 0.95]),
        ("[a, b]", ["a", "b"]),
        ("[]", []),
        ('"3"', "3"),
        ("bm25", "bm25"),
        ("my_pkg.rewards:Fluent", "my_pkg.rewards:Fluent"),
        ("a b=c", "a b=c"),
        ("runs/x", "runs/x"),
        ("{a = 1}", {"a": 1}),
        ('{a=.5,b=-.5, "c:D"=1}', {"a": 0.5, "b": -0.5, "c:D": 1}),
        ("{a={b=[.5]}}", {"a": {"b": [0.5]}}),
        ("{a=b}", "{a=b}"),
        ("", ""),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_words_are_toml_where_they_can_be(word, value):
    assert literal(word) == value


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,3}", fullmatch=True),
        st.dictionaries(st.text('ab.:"\\ é', min_size=1), scalars, min_size=1),
    )
)
def test_flattened_tables_nest_again(tables):
    assert nest(dict(flatten(tables))) == tables
