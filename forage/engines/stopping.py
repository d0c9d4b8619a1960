"""Finds the token that ends a turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from forage.types import Finish, Stop

if TYPE_CHECKING:
    from forage.interfaces import Tokenizer

CUT = "\ufffd"
"""What tokenizers decode a part of a character to."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One `Stop` as it is looked for: the row of the table it has, the last characters of its strings."""

    number: int
    stop: Stop
    lasts: frozenset[str]
    longest: int


class Stops:
    """Tells which turns are over, looking at as few of their tokens as possible.

    `watched` [rules, V] marks the tokens after which a turn may be over. At first these are all; a token is struck off
    when it is seen for the first time and no stop string can end within its text. So the vocabulary is never
    decoded as a whole, and most tokens cost nothing.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int, device: torch.device) -> None:
        self._tokenizer = tokenizer
        self._rules: dict[Stop, Rule] = {}
        self._texts: dict[int, tuple[str, str]] = {}  # of tokens that were looked at
        self.watched = torch.empty(0, vocab, dtype=torch.bool, device=device)

    def rule(self, stop: Stop) -> Rule:
        """The rule of a `Stop`, the same one each time."""
        if stop not in self._rules:
            self._rules[stop] = self._new_rule(stop)
        return self._rules[stop]

    def ended(self, rule: Rule, tokens: list[int]) -> Finish | None:
        """Why the turn that sampled `tokens` ends with the last of them, or None where it goes on."""
        if tokens[-1] in rule.stop.token_ids:
            return Finish.EOS
        if not rule.stop.strings:
            return None
        once, twice = self._texts_of(tokens[-1])
        if not _may_complete(rule, once, twice):
            self.watched[rule.number, tokens[-1]] = False
            return None
        tail = self._tail(tokens, rule.longest + len(twice))
        return Finish.STOP if any(string in tail for string in rule.stop.strings) else None

    def _new_rule(self, stop: Stop) -> Rule:
        if "" in stop.strings:
            raise ValueError("an empty stop string would end every turn at once")
        lasts = {string[-1] for string in stop.strings}
        if not all(last.isascii() for last in lasts):
            lasts.add(CUT)  # the token that completes such a character may hold only its last bytes
        row = self.watched.new_full((1, self.watched.shape[1]), bool(lasts))
        row[0, [token for token in stop.token_ids if token < row.shape[1]]] = True
        self.watched = torch.cat([self.watched, row])
        return Rule(len(self._rules), stop, frozenset(lasts), max(map(len, stop.strings), default=0))

    def _texts_of(self, token: int) -> tuple[str, str]:
        """The token's text, and that of two of them: a tokenizer may drop the leading space of the first only."""
        if token not in self._texts:
            self._texts[token] = self._decode([token]), self._decode([token, token])
        return self._texts[token]

    def _tail(self, tokens: list[int], characters: int) -> str:
        """The end of the turn's text: at least this many characters, and those at the cut, which may be broken."""
        n = characters + 4
        while n < len(tokens) and len(self._decode(tokens[-n:])) < characters + 4:
            n *= 2
        return self._decode(tokens[-n:])

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=False)


def _may_complete(rule: Rule, once: str, twice: str) -> bool:
    """Whether a stop string may end within a token of these texts, whatever stands before it."""
    if CUT in twice:
        return not rule.lasts.isdisjoint(twice)
    texts = (once, twice[len(once) :])
    return any(_ends_within(text, string) for text in texts for string in rule.stop.strings)


def _ends_within(text: str, string: str) -> bool:
    return string in text or any(text.startswith(string[i:]) for i in range(1, len(string)))
