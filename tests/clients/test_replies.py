"""What was replied is kept, over runs."""

import pytest

from forage.clients.replies import Replies
from forage.errors import DataError


def test_replies_are_kept_by_prompt_and_by_who_was_asked(tmp_path):
    file = tmp_path / "deep" / "replies.jsonl"
    first = Replies(file, "judge-1")
    assert first.get("Right?") is None
    first.add("Right?", "yes")
    first.add("Left? \ud800", "no")
    assert first.get("Right?") == "yes"
    later = Replies(file, "judge-1")
    assert (later.get("Right?"), later.get("Left? \ud800"), later.get("Up?")) == ("yes", "no", None)
    assert Replies(file, "judge-2").get("Right?") is None


def test_without_a_file_they_are_kept_in_memory():
    replies = Replies(None, "judge-1")
    replies.add("Right?", "yes")
    assert replies.get("Right?") == "yes"


def test_a_line_that_was_cut_off_costs_nothing_but_itself(tmp_path):
    file = tmp_path / "replies.jsonl"
    Replies(file, "judge").add("one", "yes")
    Replies(file, "judge").add("two", "no")
    file.write_bytes(file.read_bytes()[:-9])
    cut = Replies(file, "judge")
    assert (cut.get("one"), cut.get("two")) == ("yes", None)
    cut.add("two", "no")
    whole = Replies(file, "judge")
    assert (whole.get("one"), whole.get("two")) == ("yes", "no")


def test_a_file_that_can_not_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match="can't be read"):
        Replies(tmp_path, "judge")
