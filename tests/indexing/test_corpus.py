import gzip
import json

import pytest
import zstandard

from forage.errors import DataError
from forage.indexing.corpus import corpus_sources, read_passages
from forage.indexing.ids import Marks, mark


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


ROWS = [{"id": "a", "title": "T", "text": "one"}, {"id": 2, "contents": '"Q"\ntwo'}]


@pytest.mark.parametrize(
    ("name", "pack"),
    [("c.jsonl", bytes), ("c.jsonl.gz", gzip.compress), ("c.jsonl.zst", zstandard.ZstdCompressor().compress)],
)
def test_json_lines_are_read_however_they_are_packed(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(lines(*ROWS)))
    assert [(p.id, p.title, p.text) for p in read_passages(tmp_path / name)] == [("a", "T", "one"), ("2", "Q", "two")]


def test_parquet_is_read_and_its_rows_are_named(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist([{"id": 1, "title": "T", "text": "one"}]), tmp_path / "c.parquet")
    parquet.write_table(arrow.Table.from_pylist([{"id": "x", "text": None}]), tmp_path / "d.parquet")
    assert [p.id for p in read_passages(tmp_path / "c.parquet")] == ["1"]
    with pytest.raises(DataError, match=r"d.parquet: row 1: `text`"):
        list(read_passages(tmp_path))
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(DataError, match="the parquet file is broken"):
        list(read_passages(tmp_path))


def test_files_of_a_folder_are_read_in_order(tmp_path):
    for name, row in (("b.jsonl", {"id": "b", "text": "x"}), ("a.jsonl", {"id": "a", "text": "x"})):
        (tmp_path / name).write_bytes(lines(row))
    (tmp_path / "notes.txt").write_text("no corpus")
    assert [p.id for p in read_passages(tmp_path)] == ["a", "b"]
    assert [source.path.rpartition("/")[2] for source in corpus_sources(tmp_path)] == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the corpus is empty"),
        (b"\n \n", "the corpus is empty"),
        (b'{"id": 1, "text": "x"}\n{"id"', r"c.jsonl:2: not JSON"),
        (b'{"id": 1, "text": "\xff"}', r"c.jsonl:1: not UTF-8"),
        (b"[1]", "must be a JSON object"),
        (b'{"text": "x"}', "`id` is missing"),
        (b'{"id": 1}', "`text` is missing"),
        (b'{"id": 1, "text": "x"}\n{"id": 2, "title": "t", "text": " "}', r"c.jsonl:2: the passage '2' has no text"),
        (b'{"id": 1, "contents": "t\\n"}', r"c.jsonl:1: the passage '1' has no text"),
        (b'{"id": 1, "text": "x"}\n\n{"id": "1", "text": "y"}', r"c.jsonl:3: the id '1' occurs before, at .*c.jsonl:1"),
        (b'{"id": 1, "text": "' + b"x" * 500 + b'"}', r"c.jsonl:1: the line is longer than 400 bytes"),
    ],
)
def test_a_line_that_is_not_usable_is_named(tmp_path, data, message):
    (tmp_path / "c.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=message):
        list(read_passages(tmp_path / "c.jsonl", max_bytes=400))


@pytest.mark.parametrize("name", ["c.jsonl.gz", "c.jsonl.zst"])
def test_a_compressed_file_that_is_cut_short_is_named(tmp_path, name):
    pack = gzip.compress if name.endswith("gz") else zstandard.ZstdCompressor().compress
    whole = pack(lines(*({"id": row, "text": f"{row * 7919}"} for row in range(3000))))
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"broken or cut short|not JSON"):
        list(read_passages(tmp_path / name))


def test_what_is_not_there_is_named(tmp_path):
    for path, message in ((tmp_path / "c.jsonl", "there is no such file"), (tmp_path, "no file in this folder")):
        with pytest.raises(DataError, match=message):
            list(read_passages(path))


def test_doubled_ids_are_found_however_far_apart():
    marks, found = Marks(), set()
    for number in range(200_000):
        found |= marks.add(str(number))
    assert not found | marks.doubled()
    for identity in ("7", "199999", "new"):
        found |= marks.add(identity)
    assert found | marks.doubled() == {mark("7"), mark("199999")}
