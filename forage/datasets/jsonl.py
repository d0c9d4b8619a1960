"""Your own questions and passages, as JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from forage.datasets.coverage import read_coverage
from forage.datasets.lines import read_lines, write_lines
from forage.errors import DataError
from forage.types import Passage, Question

Row = dict[str, Any]


class Jsonl:
    """Questions and a corpus from files: one JSON object a line, plain, `.gz` or `.zst`.

    A question has `id`, `question`, `answers`, and optionally `dataset`, `hops`, `supporting_titles`, `split`; a
    passage has `id`, `text`, and optionally `title`. The names that Search-R1 and FlashRAG use are read too (see
    `read_questions`, `read_passages`). Other fields are ignored.

    Args:
        questions: file of questions.
        corpus: file of passages, or a folder of such files; not needed where search.kind brings its own passages.
        eval_questions: file of questions to evaluate on; without one, those of `questions`.
        train_split: train only on rows whose `split` is this; empty: on all.
        eval_split: evaluate only on rows whose `split` is this; empty: on all.
        coverage: a file of `forage coverage --out`: what it says the corpus can't answer is not trained on, and
            evaluations tell both figures. Questions that it does not know count as covered.

    Raises:
        DataError: a file is missing, empty, or has a line that is not usable; names file and line.
    """

    def __init__(
        self,
        split: Literal["train", "eval"],
        *,
        questions: Path,
        corpus: Path | None = None,
        eval_questions: Path | None = None,
        train_split: str = "",
        eval_split: str = "",
        coverage: Path | None = None,
    ) -> None:
        path, rows = (questions, train_split) if split == "train" else (eval_questions or questions, eval_split)
        self._questions = tuple(read_questions(path, split=rows))
        if coverage and split == "train":
            self._questions = _covered(self._questions, coverage)
        self.corpus = Path(corpus) if corpus else ""

    def questions(self) -> Sequence[Question]:
        return self._questions

    def passages(self) -> Iterator[Passage]:
        return read_passages(self.corpus) if self.corpus else iter(())


def _covered(questions: Sequence[Question], coverage: Path) -> tuple[Question, ...]:
    found = read_coverage(coverage)
    kept = tuple(question for question in questions if question.id not in found or found[question.id].covered)
    if not kept:
        raise DataError(
            f"{coverage} says that the corpus can't answer a single one of the {len(questions):,} questions"
        )
    return kept


def read_questions(path: Path | str, *, split: str = "") -> Iterator[Question]:
    """The questions of a file, one by one.

    Answers stand under `answers`, `golden_answers`, or `reward_model.ground_truth.target` (a string or a list of
    strings), the name of the data set under `dataset` or `data_source`.

    Args:
        split: keep only rows whose `split` field is this; empty: all.

    Raises:
        DataError: see `Jsonl`; also where two questions share an id, and where none is left.
    """
    first: dict[str, str] = {}
    kept = 0
    for where, row in read_lines(Path(path)):
        question = Question(
            id=_new_id(row, where, first),
            text=_text(row, "question", where),
            answers=answers_of(row, where),
            dataset=_optional(row, "dataset", "data_source", where=where),
            hops=_hops(row, where),
            supporting_titles=strings_of(row.get("supporting_titles") or [], "supporting_titles", where),
        )
        if not split or row.get("split") == split:
            kept += 1
            yield question
    if not kept:
        raise DataError(
            f"{path}: no question" + (f" whose `split` is {split!r}" if split and first else " in this file")
        )


def read_passages(path: Path | str) -> Iterator[Passage]:
    """The passages of a file, one by one, or of all JSON-lines files of a folder in the order of their names.

    In place of `title` and `text` there can be `contents`: the title on the first line, in double quotes, the text
    behind it.

    Raises:
        DataError: see `Jsonl`; also where two passages share an id, and where there is none.
    """
    first: dict[str, str] = {}
    for file in _files(Path(path)):
        for where, row in read_lines(file):
            _new_id(row, where, first)
            yield passage_of(row, where)
    if not first:
        raise DataError(f"{path}: the corpus is empty")


def passage_of(row: Row, where: str) -> Passage:
    """The passage of one line.

    Args:
        row: its fields.
        where: file and line, for messages.

    Raises:
        DataError: its id is missing or no string or whole number; its text is missing, or it or the title no string.
    """
    return Passage(_id(row, where), *_title_and_text(row, where))


def write_questions(path: Path | str, questions: Iterable[Question]) -> None:
    """Write questions as `read_questions` reads them; the file appears once it is complete."""
    write_lines(Path(path), map(_question_row, questions))


def write_passages(path: Path | str, passages: Iterable[Passage]) -> None:
    """Write passages as `read_passages` reads them; the file appears once it is complete."""
    write_lines(Path(path), ({"id": p.id, "title": p.title, "text": p.text} for p in passages))


def _question_row(question: Question) -> Row:
    row = {
        "id": question.id,
        "question": question.text,
        "answers": question.answers,
        "dataset": question.dataset,
        "hops": question.hops,
        "supporting_titles": question.supporting_titles,
    }
    return {name: value for name, value in row.items() if value not in ("", None, ())}


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    endings = (".jsonl", ".jsonl.gz", ".jsonl.zst")
    return sorted(file for file in path.iterdir() if file.name.endswith(endings) and not file.name.startswith("."))


def _id(row: Row, where: str) -> str:
    identity = row.get("id")
    if not _is_id(identity):
        raise DataError(f"{where}: `id` {_problem(row, 'id')}; it must be a string or a whole number")
    return str(identity)


def _new_id(row: Row, where: str, first: dict[str, str]) -> str:
    identity = _id(row, where)
    if identity in first:
        raise DataError(f"{where}: the id {identity!r} occurs before, at {first[identity]}; ids must differ")
    first[identity] = where
    return identity


def _text(row: Row, name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: `{name}` {_problem(row, name)}; it must be a string that is not empty")
    return value


def _optional(row: Row, *names: str, where: str) -> str:
    for name in names:
        value = row.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            raise DataError(f"{where}: `{name}` {_problem(row, name)}; it must be a string")
    return ""


def answers_of(row: Row, where: str, *, optional: bool = False) -> tuple[str, ...]:
    """The gold answers of a question's line; none where they are `optional` and missing.

    Raises:
        DataError: they are missing, empty, or no strings.
    """
    for name, value in (
        ("answers", row.get("answers")),
        ("golden_answers", row.get("golden_answers")),
        (_TARGET, _target(row)),
    ):
        if value is not None:
            answers = strings_of([value] if isinstance(value, str) else value, name, where)
            if not any(answer.strip() for answer in answers):
                raise DataError(f"{where}: `{name}` is empty: a question needs at least one answer")
            return answers
    if optional:
        return ()
    raise DataError(
        f"{where}: no answers; they stand under `answers`, `golden_answers` or `{_TARGET}`, as a list of strings"
    )


_TARGET = "reward_model.ground_truth.target"


def _target(row: Row) -> Any:
    value: Any = row
    for name in _TARGET.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def strings_of(value: Any, name: str, where: str) -> tuple[str, ...]:
    """The list of strings that stands under `name`.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError(f"{where}: `{name}` must be a list of strings, not {value!r:.80}")
    return tuple(value)


def ids_of(value: Any, name: str, where: str) -> tuple[str, ...]:
    """The list of ids that stands under `name`.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(value, list) or not all(map(_is_id, value)):
        raise DataError(f"{where}: `{name}` must be a list of strings or whole numbers, not {value!r:.80}")
    return tuple(map(str, value))


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def _hops(row: Row, where: str) -> int | None:
    hops = row.get("hops")
    if hops is None or (isinstance(hops, int) and not isinstance(hops, bool)):
        return hops
    raise DataError(f"{where}: `hops` {_problem(row, 'hops')}; it must be a whole number")


def _title_and_text(row: Row, where: str) -> tuple[str, str]:
    if "text" in row or "contents" not in row:
        if not isinstance(row.get("text"), str):
            raise DataError(f"{where}: `text` {_problem(row, 'text')}; a passage has `title` and `text`, or `contents`")
        return _optional(row, "title", where=where), row["text"]
    contents = _text(row, "contents", where)
    title, newline, text = contents.partition("\n")
    quoted = title.strip()
    if len(quoted) > 1 and quoted[0] == quoted[-1] == '"':
        return quoted[1:-1], text
    return (quoted, text) if newline else ("", contents)


def _problem(row: Row, name: str) -> str:
    return f"is {row[name]!r:.80}" if name in row else "is missing"
