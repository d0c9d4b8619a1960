"""Episodes as the page embeds them: tokens as text, gold answers marked, passages once each, within a budget."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forage.records import Record
from forage.text import normalize_answer

Packed = dict[str, Any]
PASSAGE_CHARACTERS = 1500
TOKENS = 6000  # of one episode
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_BROKEN = "\ufffd"  # what an incomplete UTF-8 sequence decodes to


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = re.sub("[<>&\u2028\u2029]", lambda found: _ESCAPES[found.group()], text)
    return text.encode("utf-8", errors="replace").decode()  # lone surrogates can't be written


def gold_spans(text: str, golds: Sequence[str]) -> list[list[int]]:
    """[start, end) of each place where a gold answer stands in `text`, in characters.

    The same match as `forage.text.contains_answer`: whole words, normalised.
    """
    words = [(normalize_answer(m.group()), m.start(), m.end()) for m in re.finditer(r"\S+", text)]
    words = [word for word in words if word[0]]
    spans: list[list[int]] = []
    for gold in {normalize_answer(gold) for gold in golds} - {""}:
        wanted = gold.split()
        runs = (words[i : i + len(wanted)] for i in range(len(words) - len(wanted) + 1))
        spans += [_trimmed(text, run[0][1], run[-1][2]) for run in runs if [word for word, _, _ in run] == wanted]
    return _disjoint(sorted(spans))


def _trimmed(text: str, start: int, end: int) -> list[int]:
    """Without punctuation at both ends."""
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and not text[end - 1].isalnum():
        end -= 1
    return [start, end]


def _disjoint(spans: list[list[int]]) -> list[list[int]]:
    kept: list[list[int]] = []
    for start, end in spans:
        if end > start and (not kept or start >= kept[-1][1]):
            kept.append([start, end])
    return kept


class Pieces:
    """The text of each token, in one table that all episodes share.

    A token is decoded behind another one, so that tokenizers that drop a text's first space keep it. A character that
    takes several tokens belongs to the last of them.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self.table: list[str] = []
        self.bytes = 0  # of the table
        self._numbers: dict[str, int] = {}
        self._known: dict[int, int] = {}
        self._tokenizer = Tokenizer.from_file(str(path))
        self._anchor: list[int] = self._tokenizer.encode("a", add_special_tokens=False).ids[-1:]
        self._before = len(self._decode(self._anchor))

    def cut(self, tokens: Sequence[int]) -> list[int]:
        """For each token the number of its text in the table."""
        numbers, held = [], []
        for i, token in enumerate(tokens):
            held.append(token)
            number = self._known.get(token) if len(held) == 1 else None
            if number is None:
                text = self._decode([*self._anchor, *held])[self._before :]
                if text.endswith(_BROKEN) and len(held) < 8 and i + 1 < len(tokens):
                    numbers.append(self._number(""))
                    continue
                number = self._number(text)
                if len(held) == 1 and not text.endswith(_BROKEN):
                    self._known[token] = number
            numbers.append(number)
            held = []
        return numbers

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
        return text

    def _number(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.table)
            self.table.append(text)
            self.bytes += len(script_json(text).encode()) + 1
        return self._numbers[text]


class Album:
    """Packs episodes, and counts the bytes that they take in the page."""

    def __init__(self, tokenizer: Path | None) -> None:
        self.passages: list[tuple[str, str]] = []
        self._bytes = 0
        self._numbers: dict[tuple[str, str], int] = {}
        self._pieces = Pieces(tokenizer) if tokenizer else None

    @property
    def pieces(self) -> list[str]:
        """The table of token texts."""
        return self._pieces.table if self._pieces else []

    @property
    def bytes(self) -> int:
        """What has been packed so far, tables included."""
        return self._bytes + (self._pieces.bytes if self._pieces else 0)

    def pack(self, record: Record) -> Packed:
        """One episode; `bytes` grows by its size."""
        golds = record["question"]["answers"]
        answer = record["answer"]
        packed: Packed = {
            "stop": record["stop"] or "",
            "answer": answer,
            "gold": gold_spans(answer or "", golds),
            "turns": [self._turn(turn, golds) for turn in record["turns"]],
            "segments": self._segments(record),
            "size": [len(record["tokens"]), sum(record["acted"])],
        }
        packed |= {name: record[name] for name in ("em", "f1", "hit", "reward", "advantage") if name in record}
        self._bytes += len(script_json(packed).encode())
        return packed

    def _turn(self, turn: Record, golds: Sequence[str]) -> Packed:
        said = {name: turn[name] for name in ("action", "queries", "text", "reason") if name in turn}
        found = [[self._passage(passage, golds) for passage in results] for results in turn["results"]]
        return said | {"found": found}

    def _passage(self, passage: Record, golds: Sequence[str]) -> list[Any]:
        """[number in the table, gold spans in the title, gold spans in the text]."""
        title, text = passage["title"], passage["text"]
        if len(text) > PASSAGE_CHARACTERS:
            text = text[:PASSAGE_CHARACTERS] + " …"
        if (title, text) not in self._numbers:
            self._numbers[title, text] = len(self.passages)
            self.passages.append((title, text))
            self._bytes += len(script_json([title, text]).encode())
        return [self._numbers[title, text], gold_spans(title, golds), gold_spans(text, golds)]

    def _segments(self, record: Record) -> list[list[Any]]:
        """[turn, 1 if acted, token texts, -100 x logprob of acted tokens] for each run of like tokens."""
        if self._pieces is None:
            return []
        segments: list[list[Any]] = []
        tokens = record["tokens"][:TOKENS]
        start = 0
        for i in range(1, len(tokens) + 1):
            kind = (record["turn"][start], record["acted"][start])
            if i == len(tokens) or (record["turn"][i], record["acted"][i]) != kind:
                logprobs = [round(-100 * value) for value in record["logprobs"][start:i]] if kind[1] else []
                segments.append([*kind, self._pieces.cut(tokens[start:i]), logprobs])
                start = i
        return segments
