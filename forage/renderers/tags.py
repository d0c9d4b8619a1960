"""The tag protocol of Search-R1 (arXiv 2503.09516): <think>, <search>, <information>, <answer>, in tokens."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from forage.errors import ConfigError
from forage.interfaces import Tokenizer
from forage.renderers.neutralise import Neutraliser
from forage.renderers.template import fill, load_template
from forage.types import Action, Answer, Completion, Found, Invalid, Passage, Retry, Search, Stop

# Tokens that end a turn in some family, whichever of them the tokenizer calls its EOS: a base model may end its text
# where the chat model ends its turn.
_ENDS = ("<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "</s>", "<eos>", "<end_of_turn>")
_TAG = re.compile(r"</?(?:think|search|information|answer)>")
_REASONING = re.compile(rf"\s*<think>(?:(?!{_TAG.pattern}).)*</think>\s*", re.DOTALL)
_BROKEN = "\ufffd"  # what an incomplete UTF-8 sequence decodes to


class TagRenderer:
    """Questions and passages to tokens, turns to actions.

    The first closing tag (`</search>` or `</answer>`) ends a turn; its block begins at the last opening tag of the same
    kind before it. What follows in the token that completed the tag is part of the turn, but means nothing. An empty
    query is `Invalid`; an empty answer is an answer, ends the episode, and never matches. An action is `well_formed`
    where its block stands behind one <think> block, no tag inside either, and only white space before and between.

    Questions and passages are neutralised (see `forage.renderers.neutralise`).

    Args:
        template: `default` (instructions for a pretrained model), `short` (nearly none, for a tiny one), `reason` (not
            a word of searching, for rollout.max_searches=0), or a TOML file with your own wording; docs/templates.md
            says what it holds.
        chat: `auto` sends the prompt as one user message through the tokenizer's chat template, where it has one;
            `never` takes plain text.
        bos: `auto` puts a BOS before plain text where the tokenizer adds one by itself (Llama does, Qwen and GPT-2
            don't); `never` leaves it out, for checkpoints that were trained without. A chat template writes its own.

    Raises:
        ConfigError: the template is unusable, or `bos` is set where a chat template decides.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        template: str = "default",
        chat: Literal["auto", "never"] = "auto",
        bos: Literal["auto", "never"] = "auto",
    ) -> None:
        self._template = load_template(template)
        self._tokenizer = tokenizer
        self._chat = chat == "auto" and bool(getattr(tokenizer, "chat_template", None))
        if self._chat and bos != "auto":
            raise ConfigError("renderer.bos can't be set where the chat template writes it; add renderer.chat=never")
        special = _special_tokens(tokenizer)
        self._neutral = Neutraliser(special)
        if self._neutral.finds(self._template.passage + self._template.separator):
            raise ConfigError(f"renderer.template = {template!r}: `passage` and `separator` must hold no tag or marker")
        self._bos = _own_bos(tokenizer) if bos == "auto" and not self._chat else []
        self._decode: Callable[[Sequence[int]], str] = _bound(
            tokenizer.decode, [], {"skip_special_tokens": False}, {"clean_up_tokenization_spaces": False}
        )
        # Special tokens in an observation are the template's own; where it has none, they are not even looked for.
        wording = "".join((self._template.found, self._template.retry, *self._template.notes.values()))
        split = {} if any(token in wording for token in special) else {"split_special_tokens": True}
        self._encode = _remembered(_bound(tokenizer.encode, "", {"add_special_tokens": False}, split))
        self._write_prompt = _remembered(self._prompt)
        eos = getattr(tokenizer, "eos_token_id", None)
        ends = {special[token] for token in _ENDS if token in special} | ({eos} if eos is not None else set())
        self.stop = Stop(strings=("</search>", "</answer>"), token_ids=tuple(sorted(ends)))

    def prompt(self, question: str) -> list[int]:
        return self._write_prompt(question)

    def parse(self, completion: Completion) -> Action:
        text = self._decode(completion.tokens)
        kind, start, block = _action_of(text)
        if not kind:
            return Invalid("no_action")
        if start < 0:
            return Invalid(f"unopened_{kind}")
        formed = bool(_REASONING.fullmatch(text, 0, start)) and not _TAG.search(block)
        if kind == "answer":
            return Answer(block.strip(), formed)
        return Search((block.strip(),), formed) if block.strip() else Invalid("empty_query")

    def thought(self, completion: Completion) -> int:
        """Tokens of the turn that end before its action's opening tag; all of them where there is no action."""
        tokens = completion.tokens
        _, start, _ = _action_of(self._decode(tokens))
        if start < 0:
            return len(tokens)
        return bisect.bisect_right(range(1, len(tokens)), start, key=lambda n: len(self._decode(tokens[:n])))

    def observation(self, seen: Found | Retry, searches_left: int, max_tokens: int) -> list[int]:
        """What the policy is shown after a turn, in at most `max_tokens` tokens.

        Passages are cut from the end, so that the lowest-ranked give way first; what follows them never is. Empty where
        `max_tokens` is too few even without a passage.
        """
        note = self._template.note(searches_left)
        if isinstance(seen, Retry):
            return _fitting(self._encode(fill(self._template.retry, note=note)), max_tokens)
        head, tail = (fill(part, note=note) for part in self._template.found.split("{passages}"))
        passages = self._passages([passage for result in seen.results for passage in result])
        whole = self._encode(head + passages + tail)
        return whole if len(whole) <= max_tokens else self._cut(head, passages, tail, max_tokens)

    def answer(self, text: str) -> tuple[list[int], list[int]]:
        """How the policy would answer with `text`, up to the closing tag: the opening tag's tokens, and the text's."""
        opening = len(self._encode("<answer>"))
        whole = self._encode(f"<answer> {self._neutral(text.strip())}")
        return whole[:opening], whole[opening:]

    @property
    def min_observation_tokens(self) -> int:
        """Tokens of the longest observation without a passage: a limit below it leaves no room for any passage."""
        lefts = [int(key) for key in self._template.notes if key != "other"] + [10_000]
        seen = (Found([]), Retry(""))
        return max(len(self.observation(one, left, 1_000_000)) for one in seen for left in lefts)

    def _prompt(self, question: str) -> list[int]:
        text = fill(self._template.prompt, question=self._neutral(question))
        if not self._chat:
            return self._bos + self._tokenizer.encode(text, add_special_tokens=False)
        message = [{"role": "user", "content": text}]
        render: Any = self._tokenizer
        text = render.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _passages(self, passages: Sequence[Passage]) -> str:
        layout = self._template.passage
        texts = (fill(layout, index=str(i), title=p.title, text=p.text) for i, p in enumerate(passages, start=1))
        return self._neutral(self._template.separator.join(texts).strip())

    def _cut(self, head: str, passages: str, tail: str, max_tokens: int) -> list[int]:
        closing = self._encode(tail)
        room = max_tokens - len(closing)
        if room < len(self._encode(head)):
            return _fitting(self._encode(head + tail), max_tokens)
        kept = self._encode(head + passages)[:room]
        for _ in range(3):  # a cut through a character leaves up to three tokens of it
            if self._decode(kept[-8:]).endswith(_BROKEN):
                kept.pop()
        return kept + closing


def _action_of(text: str) -> tuple[str, int, str]:
    """Kind of the action that ends `text`, where its opening tag begins, and what stands between the tags.

    The kind is empty where no tag is closed; the start is -1 where the tag was never opened.
    """
    ends = {kind: text.find(f"</{kind}>") for kind in ("search", "answer")}
    closed = [kind for kind, end in ends.items() if end >= 0]
    if not closed:
        return "", -1, ""
    kind = min(closed, key=lambda kind: ends[kind])
    before, opening, block = text[: ends[kind]].rpartition(f"<{kind}>")
    return kind, len(before) if opening else -1, block


def _fitting(tokens: list[int], max_tokens: int) -> list[int]:
    return tokens if len(tokens) <= max_tokens else []


def _special_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Content -> id of every special and added token."""
    added: dict[str, int] = dict(getattr(tokenizer, "get_added_vocab", dict)())
    named = zip(getattr(tokenizer, "all_special_tokens", ()), getattr(tokenizer, "all_special_ids", ()), strict=True)
    return added | dict(named)


def _own_bos(tokenizer: Tokenizer) -> list[int]:
    """The BOS that the tokenizer puts before a text by itself, if it does."""
    bos = getattr(tokenizer, "bos_token_id", None)
    return [bos] if bos is not None and tokenizer.encode("a", add_special_tokens=True)[:1] == [bos] else []


def _bound(
    call: Callable[..., Any], probe: Any, known: dict[str, bool], tried: dict[str, bool]
) -> Callable[[Any], Any]:
    """`call` with the options `known`, and with `tried` where it accepts them."""
    try:
        call(probe, **known, **tried)
    except TypeError:
        tried = {}
    return lambda value: call(value, **known, **tried)


def _remembered(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    """`encode` with its last results kept: the samples of a question are shown the same texts again and again."""
    kept = functools.lru_cache(maxsize=1024)(lambda text: tuple(encode(text)))
    return lambda text: list(kept(text))
