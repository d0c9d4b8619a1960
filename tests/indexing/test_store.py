import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.errors import DataError, IndexFolderError
from forage.indexing.store import OFFSETS, RECORDS, PassageStore, StoreWriter
from forage.types import Passage

text = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.lists(st.builds(Passage, text, text, text), max_size=8))
def test_what_is_written_is_read(tmp_path_factory, passages):
    folder = tmp_path_factory.mktemp("store")
    with StoreWriter(folder) as writer:
        for passage in passages:
            writer.add(passage)
    store = PassageStore(folder)
    assert list(store) == passages == [store[row] for row in range(len(store))]
    assert list(store.read(1, 3)) == passages[1:3]
    assert store.digest() == writer.digest


def test_rows_that_are_not_there_are_refused(tmp_path):
    with StoreWriter(tmp_path) as writer:
        writer.add(Passage("a", "", "x"))
    for row in (-1, 1):
        with pytest.raises(IndexError):
            PassageStore(tmp_path)[row]


def test_half_of_a_character_is_no_text(tmp_path):
    with pytest.raises(DataError, match="no valid Unicode"):
        with StoreWriter(tmp_path) as writer:
            writer.add(Passage("a", "", "\ud800"))


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    with StoreWriter(tmp_path) as writer:
        writer.add(Passage("a", "", "x"))
    (tmp_path / RECORDS).write_bytes((tmp_path / RECORDS).read_bytes() + b"x")
    with pytest.raises(IndexFolderError, match="don't belong together"):
        PassageStore(tmp_path)
    np.save(tmp_path / OFFSETS, np.array([0, 2, 7]))
    with pytest.raises(IndexFolderError, match="is broken"):
        PassageStore(tmp_path)[0]
    (tmp_path / OFFSETS).unlink()
    with pytest.raises(IndexFolderError, match="can't be read"):
        PassageStore(tmp_path)
