"""What is kept and counted, over processes."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.clients.kept import Kept
from forage.errors import DataError


def test_values_are_kept_by_kind_and_question_and_stay(tmp_path):
    file = tmp_path / "deep" / "kept.sqlite"
    kept = Kept(file)
    assert kept.get("a", "b") is None
    kept.put("a", "b", "one")
    kept.put("a", "b", "two")
    assert Kept(file).get("a", "b") == "two"
    assert Kept(file).get("b", "a") is None
    assert Kept(None).get("a", "b") is None


@given(st.text(), st.text(), st.text(), st.text())
def test_no_two_questions_are_taken_for_one(kind, asked, other, another):
    kept = Kept(None)
    kept.put(kind, asked, "said")
    assert (kept.get(other, another) == "said") == ((kind, asked) == (other, another))


def test_a_counter_never_passes_its_limit_whoever_counts(tmp_path):
    file, counted = tmp_path / "kept.sqlite", []

    def count():
        kept = Kept(file)
        counted.extend(kept.spend("serper", 30) for _ in range(10))
        kept.close()

    threads = [threading.Thread(target=count) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counted) == Kept(file).spent("serper") == 30
    assert Kept(file).spend("serper", None)
    assert not Kept(file).spend("tavily", 0)


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "text").write_text("no database, but a text of some length" * 40)
    for path in (tmp_path, tmp_path / "text"):
        with pytest.raises(DataError, match="can't be used as a cache"):
            Kept(path)
