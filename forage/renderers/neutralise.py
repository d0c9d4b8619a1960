"""Text from outside is made harmless before it enters the context.

A passage can hold `</information>`, `<answer>`, `<|im_end|>` or `[INST]`. The first character of every such marker
is replaced by a look-alike (`<` by `‹`, `[` by `⁅`), so that it stays readable, but can neither close its block, act
or answer, nor become one of the tokenizer's special tokens, wherever the text is cut.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

TAGS = ("think", "search", "information", "answer")

_LOOKALIKE = {"<": "‹", "＜": "‹", "﹤": "‹", "[": "⁅"}
_WORD_JOINER = "\u2060"  # breaks a marker whose first character has no look-alike
_GAP = r"[\s\u200b-\u200f\u2060\ufeff]*"
_ANGLE = "[<＜﹤]"  # compatibility normalisation turns the wide and the small form into `<`

# Markers of common chat templates, neutral also for tokenizers that don't know them: a model may have met them as text.
_PATTERNS = (
    rf"{_ANGLE}(?={_GAP}/?{_GAP}(?:{'|'.join(TAGS)})\b)",
    rf"{_ANGLE}(?={_GAP}[|｜])",
    rf"{_ANGLE}(?={_GAP}/?{_GAP}(?:s|bos|eos|pad|unk|mask|start_of_turn|end_of_turn|tools?|tool_call|tool_response){_GAP}>)",
    rf"{_ANGLE}(?=<{_GAP}/?{_GAP}SYS{_GAP}>)",
    rf"\[(?={_GAP}/?{_GAP}(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT){_GAP}\])",
)


class Neutraliser:
    """Calls on text: the same text without a marker.

    Args:
        special: the contents of the tokenizer's special and added tokens. Blank ones and those of one character are
            left alone: they can't be told from plain text.
    """

    def __init__(self, special: Iterable[str] = ()) -> None:
        rests: dict[str, set[str]] = defaultdict(set)
        for token in map(str.strip, special):
            if len(token) > 1:
                rests[token[0]].add(re.escape(token[1:]))
        tokens = (f"{re.escape(first)}(?={'|'.join(sorted(rest))})" for first, rest in sorted(rests.items()))
        # A match is one character, what follows is looked at only: markers that overlap are all found.
        self._marker = re.compile("|".join((*_PATTERNS, *tokens)), re.IGNORECASE)
        # Looking for first characters alone, and trying the markers only there, is ten times as fast.
        firsts = "".join(map(re.escape, sorted({*_LOOKALIKE, *rests})))
        self._first = re.compile(f"[{firsts}]", re.IGNORECASE)

    def __call__(self, text: str) -> str:
        def replaced(first: re.Match[str]) -> str:
            character = first.group()
            marked = self._marker.match(text, first.start())
            return _LOOKALIKE.get(character, character + _WORD_JOINER) if marked else character

        return self._first.sub(replaced, text)

    def finds(self, text: str) -> bool:
        """Whether `text` holds a marker."""
        return self._marker.search(text) is not None
