"""What tests/test_reference.py checks of how retrieval is judged."""

from forage.recall import Judged, judge
from forage.text import contains_answer
from forage.types import Passage

OTHERWISE = {
    "inside_word": 0.0,
    "article_gold": 0.0,
}
"""Case -> our hit where FlashRAG's is another one: we look for whole words, and for something."""


def retrieval_recall(case):
    """A hit is FlashRAG's by whole words: normalised, in title and text, in any of the first k passages.

    DPR's differs in the normalisation (accents, punctuation and articles).
    """
    inputs = case["inputs"]
    found = [_passage(row, contents) for row, contents in enumerate(inputs["passages"])]
    k = inputs["k"]
    question = Judged("q", "?", frozenset(), False, tuple(inputs["golds"]))
    hit = judge(question, found, [k])["hit"][str(k)]
    expected = OTHERWISE.get(case["name"], case["expected"]["flashrag_recall"])
    assert float(hit or 0.0) == expected
    by_characters = any(contains_answer(f"{p.title} {p.text}", inputs["golds"], match="characters") for p in found[:k])
    if case["name"] != "article_gold":
        assert float(by_characters) == case["expected"]["flashrag_recall"]


def _passage(row, contents):
    title, _, text = contents.partition("\n")
    return Passage(str(row), title.strip('"'), text)
