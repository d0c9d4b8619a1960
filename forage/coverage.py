"""`forage coverage`: which questions a corpus can answer at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from forage.datasets.coverage import Covered
from forage.intervals import wilson
from forage.text import normalize_answer
from forage.types import Passage, Question

Progress = Callable[[int], None]
_YES_NO = frozenset({"yes", "no"})


def measure_coverage(
    questions: Sequence[Question],
    passages: Iterable[Passage],
    progress: Progress | None = None,
    *,
    left_out: Iterable[str] = (),
) -> list[Covered]:
    """Which questions the passages can answer, read once, in the order of the questions.

    A question is covered where a gold answer stands in some passage, by words and normalised as for exact match, or
    where all its supporting titles are titles of passages. Where titles are given, "yes" and "no" are no evidence:
    they stand anywhere.

    Args:
        questions: what is asked.
        passages: of the corpus.
        progress: is told how many passages were read.
        left_out: titles of passages that others stand for, as duplicates.
    """
    search = _Search(questions, left_out)
    for done, passage in enumerate(passages, start=1):
        search.read(passage)
        if progress and done % 1000 == 0:
            progress(done)
    return [search.covered(question) for question in questions]


def coverage_summary(found: Sequence[Covered]) -> dict[str, Any]:
    """n, covered, share, share_ci (95%), by_answer, and by_titles: None where no question has titles."""
    covered, titled = sum(each.covered for each in found), [each for each in found if each.titles is not None]
    return {
        "n": len(found),
        "covered": covered,
        "share": covered / len(found),
        "share_ci": wilson(covered, len(found)),
        "by_answer": sum(each.answer for each in found),
        "by_titles": sum(bool(each.titles) for each in titled) if titled else None,
    }


def coverage_text(summary: Mapping[str, Any]) -> str:
    """The summary in words."""
    low, high = summary["share_ci"]
    titles = "" if summary["by_titles"] is None else f", all supporting titles for {summary['by_titles']:,}"
    return (
        f"{summary['covered']:,} of {summary['n']:,} questions can be answered from the corpus: "
        f"{summary['share']:.3f}  (95%: {low:.3f} to {high:.3f})\n"
        f"a gold answer stands in some passage for {summary['by_answer']:,}{titles}"
    )


class _Search:
    """All answers and titles that are looked for at once. What was found is not looked for again."""

    def __init__(self, questions: Sequence[Question], known: Iterable[str]) -> None:
        titles = {title for question in questions for title in question.supporting_titles}
        self._missing_titles = titles.difference(known)
        self._found: set[str] = set()  # answers, normalised
        self._by_word: dict[str, set[str]] = defaultdict(set)  # an answer's longest word, mostly its rarest -> answers
        for question in questions:
            for answer in self._answers(question):
                self._by_word[max(answer.split(), key=len)].add(answer)

    def read(self, passage: Passage) -> None:
        self._missing_titles.discard(passage.title)
        text = normalize_answer(f"{passage.title} {passage.text}")
        for word in self._by_word.keys() & set(text.split()):
            here = {answer for answer in self._by_word[word] if f" {answer} " in f" {text} "}
            self._found |= here
            self._by_word[word] -= here
            if not self._by_word[word]:
                del self._by_word[word]

    def covered(self, question: Question) -> Covered:
        answer = any(each in self._found for each in self._answers(question))
        titles = self._missing_titles.isdisjoint(question.supporting_titles) if question.supporting_titles else None
        return Covered(id=question.id, covered=answer or bool(titles), answer=answer, titles=titles)

    def _answers(self, question: Question) -> list[str]:
        normalised = filter(None, map(normalize_answer, question.answers))
        return [answer for answer in normalised if not (question.supporting_titles and answer in _YES_NO)]
