"""Answers as strings: normalisation, exact match, token F1, containment. Rewards and evaluation share it.

`normalize_answer`, `exact_match` and `token_f1` give what the official SQuAD v1.1 script gives (Rajpurkar et al. 2016),
which is what Search-R1, NQ-open and HotpotQA scores are computed with, but for one rule: a gold answer of which
normalisation leaves nothing ("The", "") never matches, where the script lets it match an empty prediction.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal

Match = Literal["words", "characters"]
"""How one text is found in another."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation and articles, white space collapsed; in this order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, golds: str | Sequence[str]) -> bool:
    """Whether `prediction` equals some gold answer, both normalised."""
    return normalize_answer(prediction) in {gold for gold in map(normalize_answer, _as_list(golds)) if gold}


def token_f1(prediction: str, golds: str | Sequence[str]) -> float:
    """F1 between the bags of normalised words, the best over the gold answers; 0.0 where there is none.

    "yes" and "no" are words like any other, as in SQuAD: the HotpotQA script's rule, by which a longer sentence gets
    nothing against a yes/no answer, is not applied, so that one number means the same on every dataset.
    """
    words = Counter(normalize_answer(prediction).split())
    return max((_f1(words, Counter(normalize_answer(gold).split())) for gold in _as_list(golds)), default=0.0)


def contains_answer(text: str, golds: str | Sequence[str], *, match: Match = "words") -> bool:
    """Whether some gold answer occurs in `text`, both normalised.

    By `words`, which must stand whole and one after another: "cat" is not in "concatenate". By `characters` it is, as
    Search-R1's and FlashRAG's sub-string scores count. A gold answer of which nothing is left is in no text.
    """
    edge = " " if match == "words" else ""
    inside = f"{edge}{normalize_answer(text)}{edge}"
    return any(f"{edge}{gold}{edge}" in inside for gold in map(normalize_answer, _as_list(golds)) if gold)


def _f1(prediction: Counter[str], gold: Counter[str]) -> float:
    common = (prediction & gold).total()
    return 2 * common / (prediction.total() + gold.total()) if common else 0.0


def _as_list(golds: str | Sequence[str]) -> Sequence[str]:
    return [golds] if isinstance(golds, str) else golds
