"""Stand-ins for the parts that are slow or outside, for your own tests: a policy that follows a script, a search
engine that is a dictionary, a tokenizer without a vocabulary file. Imports no torch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from forage.errors import RetrieverError
from forage.interfaces import Tokenizer
from forage.types import Completion, Finish, Passage, Sampling

if TYPE_CHECKING:
    from torch import Tensor

Script = Sequence[str] | Callable[[str, int], str]


class ByteTokenizer:
    """One token a byte of UTF-8, and one for the end of a text."""

    eos_token_id = 256
    bos_token_id = None
    chat_template = None
    all_special_tokens = ("<eos>",)
    all_special_ids = (256,)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The bytes of `text`; special tokens are never read from it."""
        del add_special_tokens
        return list(text.encode())

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of `token_ids`."""
        end = b"" if skip_special_tokens else b"<eos>"
        return b"".join(bytes([token]) if token < 256 else end for token in token_ids).decode(errors="replace")


class ScriptedEngine:
    """An engine whose every session says what a script says.

    Args:
        script: the text of each turn, or a function of (context as text, number of the turn) that gives it.
        tokenizer: turns the texts into tokens.
        logprob: what each token is said to have been sampled at.
    """

    def __init__(self, script: Script, tokenizer: Tokenizer, *, logprob: float = -0.5) -> None:
        self.version = 0
        self.sessions: list[str] = []  # the group of every session that was opened
        self._script, self._tokenizer, self._logprob = script, tokenizer, logprob

    @asynccontextmanager
    async def session(self, group: str) -> AsyncIterator[ScriptedSession]:
        self.sessions.append(group)
        yield ScriptedSession(self)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        for _ in weights:
            pass
        self.version = version

    def take_stats(self) -> dict[str, float]:
        return {}

    def say(self, context: Sequence[int], turn: int, sampling: Sampling) -> Completion:
        """The script's turn as an engine would have decoded it: up to a stop string, the limit, or an EOS."""
        script = self._script
        text = script(self._tokenizer.decode(context), turn) if callable(script) else script[turn]
        tokens, finish = self._cut(self._tokenizer.encode(text, add_special_tokens=False), sampling)
        return Completion(tokens, [self._logprob] * len(tokens), [self.version] * len(tokens), finish)

    def _cut(self, tokens: list[int], sampling: Sampling) -> tuple[list[int], Finish]:
        for end in range(1, min(len(tokens), sampling.max_tokens) + 1):
            text = self._tokenizer.decode(tokens[:end])
            if any(stop in text for stop in sampling.stop.strings):
                return tokens[:end], Finish.STOP
        if len(tokens) < sampling.max_tokens and sampling.stop.token_ids:
            return [*tokens, sampling.stop.token_ids[0]], Finish.EOS
        return tokens[: sampling.max_tokens], Finish.LENGTH


class ScriptedSession:
    """One episode with a `ScriptedEngine`."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine, self._turn = engine, 0

    async def generate(
        self, tokens: Sequence[int], sampling: Sampling, on_token: Callable[[int], None] | None = None
    ) -> Completion:
        completion = self._engine.say(tokens, self._turn, sampling)
        self._turn += 1
        if on_token:
            for token in completion.tokens:
                on_token(token)
        return completion


class DictionaryRetriever:
    """Finds what stands under the query in a dictionary; nothing for a query that is not there.

    A `RetrieverError` in the dictionary is that query's outcome, any other exception is raised.
    """

    def __init__(self, found: Mapping[str, Sequence[Passage] | Exception]) -> None:
        self.calls: list[list[str]] = []  # the queries of each call
        self._found = found

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage] | RetrieverError]:
        self.calls.append(list(queries))
        return [self._outcome(query, k) for query in queries]

    def _outcome(self, query: str, k: int) -> list[Passage] | RetrieverError:
        found = self._found.get(query, ())
        if isinstance(found, RetrieverError):
            return found
        if isinstance(found, Exception):
            raise found
        return list(found)[:k]
