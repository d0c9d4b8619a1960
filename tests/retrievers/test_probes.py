import pytest

from forage.errors import ConfigError, DataError
from forage.retrievers.empty import EmptyRetriever
from forage.retrievers.random import RandomRetriever
from forage.types import Passage

CORPUS = [Passage(str(row), f"title {row}", f"text {row}") for row in range(50)]


def test_empty_finds_nothing():
    assert EmptyRetriever(CORPUS).lookup(["a", "b"], 3) == [[], []]


def test_random_finds_k_different_passages_that_depend_on_seed_and_query_alone():
    first = RandomRetriever(CORPUS, seed=1).lookup(["a", "b"], 5)
    again = RandomRetriever(iter(CORPUS), seed=1).lookup(["b", "a"], 5)
    assert first == again[::-1]
    assert all(len({passage.id for passage in found}) == 5 for found in first)
    assert first[0] != first[1]
    assert RandomRetriever(CORPUS, seed=2).lookup(["a"], 5) != first[:1]


def test_random_reaches_every_passage():
    found = RandomRetriever(CORPUS).lookup([str(query) for query in range(100)], 5)
    assert {passage.id for result in found for passage in result} == {passage.id for passage in CORPUS}


def test_random_refuses_what_it_can_not_serve():
    with pytest.raises(ConfigError, match="from 1 to 50"):
        RandomRetriever(CORPUS).lookup(["a"], 51)
    with pytest.raises(DataError, match="empty"):
        RandomRetriever([])
