import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.errors import ConfigError, RetrieverError
from forage.retrievers.bm25 import BM25Retriever
from forage.retrievers.gather import Gather
from forage.testing import DictionaryRetriever
from forage.types import Passage


def passage(name):
    return Passage(name, "", name)


class Recorder:
    """A synchronous index that finds a passage named like the query, and fails for queries that say so."""

    def __init__(self):
        self.calls = []

    def lookup(self, queries, k):
        self.calls.append((list(queries), k))
        if any("fail" in query for query in queries):
            raise OSError("disk on fire")
        return [[passage(query)] * k for query in queries]


def run(coroutine):
    return asyncio.run(coroutine)


async def ask(gather, *searches):
    """Each of (queries, k), from an episode of its own."""
    return await asyncio.gather(*(gather.search(queries, k) for queries, k in searches))


def test_concurrent_searches_become_one_call_with_each_query_once():
    index = Recorder()
    results = run(ask(Gather(index), (["a"], 2), (["b", "a"], 2), (["c"], 2), (["a"], 2)))
    assert index.calls == [(["a", "b", "c"], 2)]
    assert results == [
        [[passage("a")] * 2],
        [[passage("b")] * 2, [passage("a")] * 2],
        [[passage("c")] * 2],
        [[passage("a")] * 2],
    ]


def test_different_k_are_different_calls():
    index = Recorder()
    run(ask(Gather(index), (["a"], 1), (["a"], 2), (["b"], 1)))
    assert index.calls == [(["a", "b"], 1), (["a"], 2)]


def test_what_was_found_is_remembered_and_the_least_recently_used_forgotten():
    async def main():
        index = Recorder()
        gather = Gather(index, cache_size=2)
        for query in ("a", "b", "a", "c", "a", "b"):
            await gather.search([query], 1)
        return [queries for queries, _ in index.calls]

    assert run(main()) == [["a"], ["b"], ["c"], ["b"]]


def test_nothing_is_remembered_with_a_cache_of_zero():
    async def main():
        index = Recorder()
        gather = Gather(index, cache_size=0)
        await gather.search(["a"], 1)
        await gather.search(["a"], 1)
        return len(index.calls)

    assert run(main()) == 2


def test_that_nothing_was_found_is_remembered_too():
    async def main():
        retriever = DictionaryRetriever({})
        gather = Gather(retriever)
        return await gather.search(["a"], 1), await gather.search(["a"], 1), retriever.calls

    assert run(main()) == ([[]], [[]], [["a"]])


def test_changing_a_result_does_not_change_what_is_remembered():
    async def main():
        gather = Gather(Recorder())
        (first,) = await gather.search(["a"], 1)
        first.clear()
        return await gather.search(["a"], 1)

    assert run(main()) == [[passage("a")]]


def test_one_querys_failure_is_its_own():
    async def main():
        index = Recorder()
        gather = Gather(index)
        results = await ask(gather, (["a"], 1), (["fail"], 1), (["b", "fail"], 1))
        again = await gather.search(["fail"], 1)  # a failure is not remembered
        return results, again, index.calls, gather.take_stats()

    results, again, calls, stats = run(main())
    failures = [results[1][0], results[2][1], again[0]]
    assert all(isinstance(failure, RetrieverError) for failure in failures)
    assert str(failures[0]) == "the search for 'fail' failed: OSError('disk on fire')"
    assert isinstance(failures[0].__cause__, OSError)
    assert (results[0], results[2][0]) == ([[passage("a")]], [passage("b")])
    assert calls == [(["a", "fail", "b"], 1), (["a"], 1), (["fail"], 1), (["b"], 1), (["fail"], 1)]
    assert stats.pop("seconds") >= 0
    assert stats == {"queries": 5, "cache_hits": 0, "unique": 4, "calls": 5, "failures": 2}


def test_a_retrievers_own_failures_pass_as_they_are():
    failure = RetrieverError("503 after 5 tries")
    retriever = DictionaryRetriever({"a": [passage("a")], "down": failure})
    assert run(ask(Gather(retriever), (["a"], 1), (["down"], 1))) == [[[passage("a")]], [failure]]
    assert retriever.calls == [["a", "down"]]


def test_an_asynchronous_retriever_that_hangs_fails_its_query_only():
    async def search(queries, k):
        if "slow" in queries:
            await asyncio.Event().wait()
        return [[passage(query)] for query in queries]

    fast, slow = run(ask(Gather(search, timeout_s=0.05), (["fast"], 1), (["slow"], 1)))
    assert fast == [[passage("fast")]]
    assert str(slow[0]) == "the search for 'slow' failed: no answer in 0.05 s"


def test_a_query_on_its_way_is_not_sent_again():
    async def main():
        calls, answered = [], asyncio.Event()

        async def search(queries, k):
            calls.append(list(queries))
            await answered.wait()
            return [[passage(query)] for query in queries]

        gather = Gather(search)
        first = asyncio.create_task(gather.search(["a"], 1))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(gather.search(["a", "b"], 1))
        await asyncio.sleep(0.01)
        answered.set()
        return await first, await second, calls

    first, second, calls = run(main())
    assert (first, second) == ([[passage("a")]], [[passage("a")], [passage("b")]])
    assert calls == [["a"], ["b"]]


def test_an_episode_that_is_cancelled_does_not_take_others_with_it():
    async def main():
        gather = Gather(Recorder())
        gone = asyncio.create_task(gather.search(["a"], 1))
        stays = asyncio.create_task(gather.search(["a"], 1))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert run(main()) == [[passage("a")]]


def test_a_gatherer_outlives_an_event_loop_that_was_left_in_the_middle():
    gather = Gather(Recorder())

    async def leave():
        search = asyncio.create_task(gather.search(["a"], 1))
        await asyncio.sleep(0)
        search.cancel()

    run(leave())
    assert run(gather.search(["a"], 1)) == [[passage("a")]]


@pytest.mark.parametrize(
    "returned",
    [None, [], [[passage("a")]] * 2, [["a"]], [[{"id": "a"}]], "ab", [None]],
    ids=repr,
)
def test_a_retriever_that_returns_something_else_fails_with_a_message(returned):
    (outcome,) = run(Gather(lambda queries, k: returned).search(["a"], 1))
    assert isinstance(outcome, RetrieverError)
    assert "a retriever must return" in str(outcome)


def test_functions_indexes_and_retrievers_are_all_taken():
    async def coroutine(queries, k):
        return [[passage(query)] for query in queries]

    for index in (
        lambda queries, k: [[passage(query)] for query in queries],
        coroutine,
        Recorder(),
        DictionaryRetriever({"a": [passage("a")]}),
    ):
        assert run(Gather(index).search(["a"], 1)) == [[passage("a")]]
    with pytest.raises(ConfigError, match="is no retriever"):
        Gather(3)


def test_a_wrong_k_is_no_failed_search():
    gather = Gather(BM25Retriever([passage("a"), passage("b")]))
    with pytest.raises(ConfigError, match="from 1 to 2"):
        run(ask(gather, (["a", "b"], 3)))


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=3), max_size=8), st.integers(0, 3))
def test_everyone_gets_what_they_asked_for_and_the_counts_add_up(rounds, cache_size):
    async def main():
        index = Recorder()
        gather = Gather(index, cache_size=cache_size)
        for queries in rounds:
            results = await ask(gather, *(([query], 1) for query in queries), (queries, 1))
            assert results[-1] == [[passage(query)] for query in queries]
            assert results[:-1] == [[[passage(query)]] for query in queries]
        stats, sent = gather.take_stats(), [query for queries, _ in index.calls for query in queries]
        assert stats["queries"] == 2 * sum(map(len, rounds))
        assert stats["unique"] == len(sent)
        assert stats["calls"] == len(index.calls)
        assert gather.take_stats()["queries"] == 0

    run(main())
