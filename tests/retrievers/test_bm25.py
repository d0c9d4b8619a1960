import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.errors import ConfigError, DataError
from forage.retrievers.bm25 import BM25Retriever
from forage.retrievers.scoring import top_k
from forage.types import Passage

SAMPLE = Path(__file__).parents[1] / "data" / "hotpotqa_sample"
WORDS = ["red", "blue", "green", "tower", "river", "the"]


def sample(name):
    return [json.loads(line) for line in (SAMPLE / name).read_text("utf-8").splitlines()]


def passages(*texts):
    return [Passage(str(row), "", text) for row, text in enumerate(texts)]


def ids(found):
    return [passage.id for passage in found]


def lucene_bm25(texts, query, k1, b):
    """The formula, in float64, one passage at a time."""
    rows = [text.split() for text in texts]
    mean = sum(map(len, rows)) / len(rows)
    scores = []
    for row in rows:
        total = 0.0
        for word in query.split():
            count, holding = row.count(word), sum(word in other for other in rows)
            idf = math.log(1 + (len(rows) - holding + 0.5) / (holding + 0.5))
            total += count and idf * count / (count + k1 * (1 - b + b * len(row) / mean))
        scores.append(total)
    return scores


def test_gold_passages_of_real_questions_are_found():
    retriever = BM25Retriever(Passage(row["id"], row["title"], row["text"]) for row in sample("corpus.jsonl"))
    questions = sample("questions.jsonl")
    found = retriever.lookup([question["question"] for question in questions], 5)
    for question, result in zip(questions, found, strict=True):
        assert {passage.title for passage in result} & set(question["supporting_titles"])
        assert [passage.score for passage in result] == sorted((p.score for p in result), reverse=True)


texts = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join), min_size=1, max_size=8)


@settings(deadline=None)
@given(texts, st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join), st.floats(0, 2), st.floats(0, 1))
def test_scores_are_those_of_lucenes_formula(texts, query, k1, b):
    retriever = BM25Retriever(passages(*texts), stemmer="none", stopwords="none", k1=k1, b=b)
    (found,) = retriever.lookup([query], len(texts))
    expected = lucene_bm25(texts, query, k1, b)
    assert {passage.id: passage.score for passage in found} == pytest.approx(
        {str(row): score for row, score in enumerate(expected) if score > 0}, rel=1e-5
    )


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]), min_size=60, max_size=90), st.integers(1, 60))
def test_both_ways_to_the_top_k_agree(scores, k):
    array = np.array(scores, np.float32)
    expected = sorted(
        ((row, score) for row, score in enumerate(scores) if score > 0), key=lambda hit: (-hit[1], hit[0])
    )
    assert top_k(array.copy(), k) == expected[:k]
    assert top_k(np.concatenate([array, np.zeros(100, np.float32)]), 100) == expected


def test_title_case_and_word_forms_do_not_matter():
    retriever = BM25Retriever([Passage("a", "Rivers", "of Europe"), Passage("b", "Towers", "of Asia")])
    assert [ids(found) for found in retriever.lookup(["RIVER?", "the tower", "europe's"], 1)] == [["a"], ["b"], ["a"]]


def test_a_word_form_that_no_passage_holds_still_finds_its_stem():
    assert ids(BM25Retriever(passages("winning", "losing")).lookup(["wins"], 2)[0]) == ["0"]


@pytest.mark.parametrize(
    "query", ["", "   ", "zebra", "the of and", "?!", "\ud83c\udfd4".encode("utf-16", "surrogatepass").decode("utf-16")]
)
def test_a_query_without_a_known_word_finds_nothing(query):
    assert BM25Retriever(passages("red tower", "blue river")).lookup([query], 2) == [[]]


def test_ties_go_to_the_earlier_passage_and_passages_without_a_word_are_left_out():
    retriever = BM25Retriever(passages("blue", "red", "green", "red"))
    assert ids(retriever.lookup(["red"], 4)[0]) == ["1", "3"]


def test_words_of_other_scripts_are_words():
    retriever = BM25Retriever(passages("Ἀθῆναι πόλις", "Город Львов", "北京 首都", "Łódź"))
    assert [ids(found) for found in retriever.lookup(["πόλις", "львов", "北京", "łódź"], 1)] == [
        ["0"],
        ["1"],
        ["2"],
        ["3"],
    ]


def test_equal_queries_are_answered_equally_whatever_is_asked_beside_them():
    retriever = BM25Retriever(passages("red tower", "blue tower", "red river"))
    alone = retriever.lookup(["red tower"], 3)[0]
    assert retriever.lookup(["zebra river", "red tower", "blue"], 3)[1] == alone


@pytest.mark.parametrize("k", [0, -1, 3])
def test_a_k_that_the_corpus_can_not_serve_is_refused(k):
    with pytest.raises(
        ConfigError, match=re.escape(f"search.k = {k}, but the corpus holds 2 passages: set it from 1 to 2")
    ):
        BM25Retriever(passages("red", "blue")).lookup(["red"], k)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([], "the corpus is empty"),
        ([Passage("x", "", "red"), Passage("x", "", "blue")], "id 'x'"),
        (passages("the", "of and"), "no passage of the corpus holds a word"),
    ],
)
def test_a_corpus_without_use_is_refused(corpus, message):
    with pytest.raises(DataError, match=message):
        BM25Retriever(corpus)


@pytest.mark.parametrize("options", [{"stemmer": "klingon"}, {"stopwords": "klingon"}, {"k1": -1.0}, {"b": 1.5}])
def test_unknown_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"klingon|k1"):
        BM25Retriever(passages("red"), **options)


def test_nothing_is_printed_while_indexing(capfd):
    BM25Retriever(passages("red", "blue"))
    assert capfd.readouterr() == ("", "")
