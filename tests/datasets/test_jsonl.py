import gzip
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forage.datasets.jsonl import Jsonl, read_passages, read_questions, write_passages, write_questions
from forage.errors import DataError
from forage.types import Passage, Question

SAMPLE = Path(__file__).parents[1] / "data" / "hotpotqa_sample"


def written(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def question(**fields):
    return {"id": "q", "question": "Who?", "answers": ["A"], **fields}


def test_a_real_file_is_read_whole():
    data = Jsonl("train", questions=SAMPLE / "questions.jsonl", corpus=SAMPLE / "corpus.jsonl")
    assert len(data.questions()) == 8
    assert len(list(data.passages())) == 40
    assert {question.hops for question in data.questions()} == {2}
    assert "Pelléas et Mélisande" in {question.answers[0] for question in data.questions()}
    titles = {passage.title for passage in data.passages()}
    assert all(titles >= set(question.supporting_titles) for question in data.questions())


def test_splits_come_from_a_field_or_from_two_files(tmp_path):
    questions, corpus = SAMPLE / "questions.jsonl", SAMPLE / "corpus.jsonl"
    options = {"questions": questions, "corpus": corpus, "train_split": "train", "eval_split": "dev"}
    train, held_out = Jsonl("train", **options).questions(), Jsonl("eval", **options).questions()
    assert (len(train), len(held_out)) == (4, 4)
    assert not set(train) & set(held_out)
    other = written(tmp_path / "other.jsonl", question(id="other"))
    two = {"questions": questions, "corpus": corpus, "eval_questions": other}
    assert [q.id for q in Jsonl("eval", **two).questions()] == ["other"]
    assert len(Jsonl("train", **two).questions()) == 8
    with pytest.raises(DataError, match="no question whose `split` is 'test'"):
        Jsonl("eval", questions=questions, corpus=corpus, eval_split="test")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (question(), Question("q", "Who?", ("A",))),
        (question(id=7, answers="A"), Question("7", "Who?", ("A",))),
        (question(answers=None, golden_answers=["A", "B"], data_source="nq"), Question("q", "Who?", ("A", "B"), "nq")),
        (
            {"id": "q", "question": "Who?", "reward_model": {"style": "rule", "ground_truth": {"target": ["A"]}}},
            Question("q", "Who?", ("A",)),
        ),
        (
            question(dataset="d", hops=3, supporting_titles=["T", "Ü"], level="hard"),
            Question("q", "Who?", ("A",), "d", 3, ("T", "Ü")),
        ),
    ],
)
def test_questions_are_read_under_our_names_and_those_of_the_reference_code(tmp_path, row, expected):
    assert list(read_questions(written(tmp_path / "q.jsonl", row))) == [expected]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": "p", "title": "T", "text": "x"}, Passage("p", "T", "x")),
        ({"id": 3, "text": ""}, Passage("3", "", "")),
        ({"id": "p", "contents": '"T"\nline one\nline two'}, Passage("p", "T", "line one\nline two")),
        ({"id": "p", "contents": "T\nx"}, Passage("p", "T", "x")),
        ({"id": "p", "contents": '"T "quoted""\nx'}, Passage("p", 'T "quoted"', "x")),
        ({"id": "p", "contents": "only text"}, Passage("p", "", "only text")),
        ({"id": "p", "contents": '"only title"'}, Passage("p", "only title", "")),
    ],
)
def test_passages_are_read_under_our_names_and_those_of_the_reference_code(tmp_path, row, expected):
    assert list(read_passages(written(tmp_path / "c.jsonl", row))) == [expected]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": "q", ', "q.jsonl:2: not JSON"),
        ("[1]", "q.jsonl:2: a line must be a JSON object, not list"),
        ({"question": "Who?", "answers": ["A"]}, "q.jsonl:2: `id` is missing; it must be a string or a whole number"),
        (question(id=1.5), "q.jsonl:2: `id` is 1.5"),
        (question(id="first"), "q.jsonl:2: the id 'first' occurs before, at .*q.jsonl:1"),
        (question(question=3), "q.jsonl:2: `question` is 3; it must be a string"),
        (question(question=" "), "q.jsonl:2: `question` is ' '"),
        ({"id": "q", "question": "Who?"}, "q.jsonl:2: no answers; they stand under `answers`, `golden_answers`"),
        (question(answers=[]), "q.jsonl:2: `answers` is empty: a question needs at least one answer"),
        (question(answers=["", " "]), "q.jsonl:2: `answers` is empty"),
        (question(answers=[1]), "q.jsonl:2: `answers` must be a list of strings"),
        (question(answers={"a": 1}), "q.jsonl:2: `answers` must be a list of strings"),
        (question(hops="two"), "q.jsonl:2: `hops` is 'two'; it must be a whole number"),
        (question(dataset=1), "q.jsonl:2: `dataset` is 1"),
        (question(supporting_titles="T"), "q.jsonl:2: `supporting_titles` must be a list of strings"),
    ],
)
def test_a_question_that_can_not_be_used_is_named_by_file_and_line(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        list(read_questions(written(tmp_path / "q.jsonl", question(id="first"), row)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "p"}, "c.jsonl:2: `text` is missing; a passage has `title` and `text`, or `contents`"),
        ({"id": "p", "text": None}, "c.jsonl:2: `text` is None"),
        ({"id": "p", "text": "x", "title": 1}, "c.jsonl:2: `title` is 1"),
        ({"id": "p", "contents": 1}, "c.jsonl:2: `contents` is 1"),
        ({"id": "first", "text": "x"}, "c.jsonl:2: the id 'first' occurs before, at .*c.jsonl:1"),
    ],
)
def test_a_passage_that_can_not_be_used_is_named_by_file_and_line(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        list(read_passages(written(tmp_path / "c.jsonl", {"id": "first", "text": "x"}, row)))


def test_bytes_that_are_not_utf8_are_named_by_file_and_line(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"id": "a", "text": "x"}\n{"id": "b", "text": "\xff"}\n')
    with pytest.raises(DataError, match=r"c.jsonl:2: not UTF-8"):
        list(read_passages(path))


def test_blank_lines_and_a_byte_order_mark_are_no_harm(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a", "text": "x"}\r\n\n  \n{"id": "b", "text": "y\xe2\x80\xa8z"}')
    assert list(read_passages(path)) == [Passage("a", "", "x"), Passage("b", "", "y\u2028z")]


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.jsonl.gz", "missing.jsonl.zst"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: there is no such file"):
        list(read_passages(tmp_path / name))


def test_empty_files_are_refused(tmp_path):
    path = written(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match=r"x.jsonl: no question in this file"):
        list(read_questions(path))
    with pytest.raises(DataError, match=r"x.jsonl: the corpus is empty"):
        list(read_passages(path))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder: the corpus is empty"):
        list(read_passages(tmp_path / "folder"))
    with pytest.raises(DataError, match="this is a folder"):
        list(read_questions(tmp_path))


@pytest.mark.parametrize("cut", ["x.jsonl.gz", "x.jsonl.zst"])
@pytest.mark.parametrize("half", [True, False])
def test_broken_compression_is_named(tmp_path, cut, half):
    path = tmp_path / cut
    write_passages(path, [Passage(str(i), f"title {i}", "text " * i) for i in range(2000)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if half else b"not compressed at all, but long")
    with pytest.raises(DataError, match=rf"{cut}(: the compressed file is broken or cut short|:\d+: not JSON)"):
        list(read_passages(path))


def test_a_corpus_may_be_a_folder_of_files(tmp_path):
    write_passages(tmp_path / "b.jsonl.gz", [Passage("2", "", "two")])
    write_passages(tmp_path / "a.jsonl.zst", [Passage("1", "", "one")])
    (tmp_path / "notes.txt").write_text("not a passage")
    assert [passage.id for passage in read_passages(tmp_path)] == ["1", "2"]
    write_passages(tmp_path / "c.jsonl", [Passage("1", "", "again")])
    with pytest.raises(DataError, match=r"c.jsonl:1: the id '1' occurs before, at .*a.jsonl.zst:1"):
        list(read_passages(tmp_path))


def test_passages_are_read_one_at_a_time(tmp_path):
    path = written(tmp_path / "c.jsonl", {"id": "a", "text": "x"}, "broken")
    assert next(iter(read_passages(path))).id == "a"


ids = st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=4)
text = st.text(max_size=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), ending=st.sampled_from(["", ".gz", ".zst"]))
def test_what_is_written_is_read_again(tmp_path, data, ending):
    passages = [Passage(i, data.draw(text), data.draw(text)) for i in data.draw(ids)]
    questions = [
        Question(
            i,
            data.draw(text) + "?",
            (data.draw(text) + "!",),
            data.draw(text),
            data.draw(st.none() | st.integers(1, 4)),
            (data.draw(text),),
        )
        for i in data.draw(ids)
    ]
    corpus, asked = tmp_path / f"c.jsonl{ending}", tmp_path / f"q.jsonl{ending}"
    write_passages(corpus, passages)
    write_questions(asked, questions)
    assert not passages or list(read_passages(corpus)) == passages
    assert not questions or list(read_questions(asked)) == questions
    before = corpus.read_bytes()
    write_passages(corpus, passages)
    assert corpus.read_bytes() == before


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    def broken():
        yield Passage("a", "", "x")
        raise RuntimeError("no more")

    path = tmp_path / "deep" / "c.jsonl.gz"
    write_passages(path, [Passage("old", "", "x")])
    with pytest.raises(RuntimeError):
        write_passages(path, broken())
    assert [passage.id for passage in read_passages(path)] == ["old"]
    assert [file.name for file in path.parent.iterdir()] == ["c.jsonl.gz"]


def test_lines_are_plain_json_that_other_tools_read(tmp_path):
    write_questions(tmp_path / "q.jsonl.gz", [Question("q", "Wer schrieb „Größe“?", ("Ä",), hops=1)])
    assert json.loads(gzip.decompress((tmp_path / "q.jsonl.gz").read_bytes())) == {
        "id": "q", "question": "Wer schrieb „Größe“?", "answers": ["Ä"], "hops": 1
    }  # fmt: skip
    write_passages(tmp_path / "c.jsonl.zst", [Passage("p", "T", "Größe", 0.5)])
    raw = zstandard.ZstdDecompressor().stream_reader((tmp_path / "c.jsonl.zst").read_bytes()).read()
    assert raw.decode() == '{"id":"p","title":"T","text":"Größe"}\n'
