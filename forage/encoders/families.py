"""How each family of text encoders wants its texts: what stands before them, and how their tokens become one vector.

A model that is asked otherwise than it was trained still gives vectors, and finds less without a word of warning. So
this table is the only place where it stands; what was chosen is written into the index.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from forage.errors import ConfigError
from forage.registry import nearest

Pooling = Literal["mean", "cls", "last"]


@dataclass(frozen=True, slots=True)
class Family:
    """What the models of a family share."""

    pooling: Pooling
    """mean of the last hidden states of all tokens but padding; that of the first token; that of the last"""
    normalise: bool
    """whether vectors are scaled to length 1, so that their inner product is a cosine"""
    query_prefix: str = ""
    passage_prefix: str = ""
    names: str = r"(?!)"
    """matches names of its models, in lower case; nothing where they can't be told by their names"""


FAMILIES: dict[str, Family] = {
    # Wang et al., arXiv 2212.03533 and 2402.05672; those with instructions want another prefix for each task
    "e5": Family("mean", True, "query: ", "passage: ", r"(^|[-_])e5-(small|base|large)(?!.*instruct)"),
    # Xiao et al., arXiv 2309.07597
    "bge": Family(
        "cls",
        True,
        "Represent this sentence for searching relevant passages: ",
        names=r"bge-(small|base|large)-en",
    ),
    "bge-zh": Family("cls", True, "为这个句子生成表示以用于检索相关文章：", names=r"bge-(small|base|large)-zh"),
    "bge-m3": Family("cls", True, names=r"bge-m3$"),  # Chen et al., arXiv 2402.03216
    "contriever": Family("mean", False, names=r"contriever"),  # Izacard et al., arXiv 2112.09118
    "gte": Family("mean", True, names=r"gte-(small|base|large)$"),  # Li et al., arXiv 2308.03281
    "gte-v1.5": Family(  # Zhang et al., arXiv 2407.19669
        "cls", True, names=r"gte-(base|large)-en-v1\.5|gte-multilingual-base|gte-modernbert-base"
    ),
    # Reimers and Gurevych, arXiv 1908.10084: those for semantic search, and what their own folders say of others
    "sentence-transformers": Family(
        "mean", True, names=r"all-(minilm|mpnet|distilroberta)|multi-qa-(minilm|mpnet|distilbert).*-cos-"
    ),
    "plain": Family("mean", True),
}
"""By name; of those whose `names` match, the first."""


def family_named(name: str) -> Family:
    """The family of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in FAMILIES:
        raise ConfigError(f"encoder.family = {name!r} is unknown; {nearest(name, list(FAMILIES))}")
    return FAMILIES[name]


def recognised(names: Sequence[str]) -> str | None:
    """The family that one of a model's names tells, if one does."""
    for family, row in FAMILIES.items():
        if any(re.search(row.names, name.lower()) for name in names):
            return family
    return None
