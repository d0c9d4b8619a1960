"""Search servers over HTTP: Forage's own service, Search-R1's contract, and servers that lie."""

import asyncio
import json
import os
import re
import time

import pytest
from hostile_server import found, hostile, reply
from http_service import PLACES, Shelf, passage, serving

from forage.errors import ConfigError, RetrieverError
from forage.options import arguments
from forage.retrievers.gather import Gather
from forage.retrievers.http import HttpRetriever
from forage.server.limits import Limits
from forage.types import Passage

QUICK = {"attempt_s": 5.0, "retries": 0}


def search(retriever, *queries, k=3):
    return asyncio.run(retriever.search(queries, k))


def ask(script, *queries, k=3, **options):
    """(outcomes, server) of a search on a server that answers by a script."""

    async def asked():
        async with hostile(script) as server:
            retriever = HttpRetriever(url=server.url, **QUICK | options)
            return await retriever.search(queries, k), server

    return asyncio.run(asked())


def cause(script, **options):
    """Why a search failed, the server's address left out."""
    (outcome,), server = ask(script, "q", **options)
    assert isinstance(outcome, RetrieverError)
    assert server.url in str(outcome)
    return str(outcome).replace(server.url, "URL")


@pytest.mark.parametrize("api", ["forage", "search-r1"])
def test_both_protocols_of_forages_service_find_the_same(api):
    with serving(PLACES) as served:
        retriever = HttpRetriever(url=f"{served.url}/retrieve", api=api)
        outcomes = search(retriever, "capital of France", "unknown", "capital of France", k=2)
    assert outcomes == [PLACES.found["capital of France"][:2], [], PLACES.found["capital of France"][:2]]


def test_calls_of_many_loops_use_one_retriever():
    with serving(PLACES) as served:
        retriever = HttpRetriever(url=served.url)
        assert [len(search(retriever, "capital of France")[0]) for _ in range(3)] == [3, 3, 3]


def test_many_queries_go_in_requests_of_a_batch_and_come_back_in_order():
    outcomes, server = ask(lambda _, body: reply(found(body["queries"])), *map(str, range(10)), batch=4)
    assert [outcome[0].text for outcome in outcomes] == [f"found {number}" for number in range(10)]
    assert sorted(len(body["queries"]) for _, body in server.asked) == [2, 4, 4]
    assert {(path, body["k"]) for path, body in server.asked} == {("/v1/search", 3)}


def test_one_connection_serves_one_request_after_another():
    async def asked():
        async with hostile(lambda _, body: reply(found(body["queries"]))) as server:
            retriever = HttpRetriever(url=server.url)
            await retriever.close()
            for _ in range(5):
                await retriever.search(["q"], 3)
            one = server.connections
            await retriever.close()
            await retriever.search(["q"], 3)
            return one, server.connections

    assert asyncio.run(asked()) == (1, 2)


def test_a_query_that_fails_fails_alone():
    index = Shelf({"good": [passage("Good")], "bad": RetrieverError("the disk is gone")})
    with serving(index) as served:
        for api in ("forage", "search-r1"):
            good, bad, unknown = search(HttpRetriever(url=served.url, api=api, **QUICK), "good", "bad", "unknown")
            assert (good, unknown) == ([passage("Good")], [])
            assert served.url in str(bad)
            assert "the disk is gone" in str(bad)


def test_a_query_that_is_refused_fails_alone():
    with serving(PLACES, limits=Limits(max_query_chars=100)) as served:
        retriever = HttpRetriever(url=served.url, **QUICK)
        outcomes = search(retriever, "capital of France", "x" * 101, "unknown")
    assert [type(outcome) for outcome in outcomes] == [list, RetrieverError, list]
    assert "max_query_chars" in str(outcomes[1])


def test_more_than_a_request_may_hold_goes_in_several():
    with serving(PLACES, limits=Limits(max_queries=3)) as served:
        outcomes = search(HttpRetriever(url=served.url, **QUICK), *["capital of France"] * 10)
    assert [len(outcome) for outcome in outcomes] == [3] * 10


def test_a_k_that_the_server_refuses_is_for_the_user_to_mend():
    with serving(PLACES, limits=Limits(max_k=5)) as served:
        for api in ("forage", "search-r1"):
            with pytest.raises(ConfigError, match=r"search\.k = 6: .*at most 5"):
                search(HttpRetriever(url=served.url, api=api), "q", "r", k=6)


def test_half_characters_are_sent_as_question_marks():
    _, server = ask(lambda _, body: reply(found(body["queries"])), "a\ud800b", "Zürich \u0000")
    assert server.asked[0][1]["queries"] == ["a?b", "Zürich \u0000"]


def test_the_token_is_sent():
    with serving(PLACES, token=os.environ["PATH"]) as served:  # some variable that is there
        assert len(search(HttpRetriever(url=served.url, token_env="PATH"), "capital of France")[0]) == 3
        (outcome,) = search(HttpRetriever(url=served.url), "capital of France")
        assert "status 401" in str(outcome)
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE"):
        HttpRetriever(url="http://127.0.0.1:1", token_env="NO_SUCH_VARIABLE")


def hits(**changed):
    return {"results": [[{"id": "1", "title": "T", "text": "t", "score": 1.0} | changed]]}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"results": []}, "0 results for 1 queries"),
        ({"results": [[], []]}, "2 results for 1 queries"),
        ({"results": None}, "not the JSON that was expected"),
        ({"result": [[]]}, "missing required field `results`"),
        ({"results": [None]}, "no result for query 0, and no error either"),
        ({"results": [[{"id": "1", "title": "T", "score": 1.0}]]}, "missing required field `text`"),
        (hits(text=""), "has no text"),
        (hits(text="  \n"), "has no text"),
        (hits(text=None), "Expected `str`, got `null`"),
        (hits(score="high"), "Expected `float`, got `str`"),
        ({"results": [hits()["results"][0] * 4]}, "4 passages for a query, where at most 3"),
        (b'{"results": [[]', "not the JSON that was expected"),
        (b"", "not the JSON that was expected"),
        (b"<html>Bad gateway</html>", "Bad gateway"),
        (b"\xff\xfe", "not the JSON that was expected"),
        (b"[" * 100_000, "not the JSON that was expected"),
    ],
)
def test_a_wrong_answer_is_named_and_not_believed(answer, why):
    assert why in cause([reply(answer)])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"result": []}, "0 results for 1 queries"),
        ({"result": [{"id": "0", "contents": "x"}]}, "not the JSON that was expected"),  # without scores, flat
        ({"result": [[{"document": {"id": "0"}, "score": 1.0}]]}, "has no text"),
        ({"result": [[{"document": {"contents": ""}, "score": 1.0}]]}, "has no text"),
        ({"result": [[{"score": 1.0}]]}, "missing required field `document`"),
        ({"detail": "Internal Server Error"}, "missing required field `result`"),
    ],
)
def test_a_wrong_answer_of_a_search_r1_server_too(answer, why):
    assert why in cause([reply(answer)], api="search-r1")


def test_what_servers_of_the_contract_write_is_read():
    dense = {"document": {"id": 7, "contents": '"Paris"\nIn France.\nA city.'}, "score": 0.5}
    lexical = {"document": {"title": "Rome", "text": "In Italy.", "contents": '"Rome"\nIn Italy.'}, "score": 0.25}
    web = {"document": {"contents": '"Oslo"\nIn Norway.'}}
    bare = {"document": "Only words.", "score": 0.125}
    nothing = {"document": {"id": "9", "contents": '"Last"\nof the corpus'}, "score": -3.4028234663852886e38}
    answer = {"result": [[dense, nothing, lexical], [web, web, web, web], [bare], [nothing]]}
    outcomes, server = ask([reply(answer)], *"abcd", api="search-r1")
    assert server.asked == [("/retrieve", {"queries": list("abcd"), "topk": 3, "return_scores": True})]
    assert outcomes[0][0] == Passage("7", "Paris", "In France.\nA city.", 0.5)
    assert (outcomes[0][1].title, outcomes[0][1].text) == ("Rome", "In Italy.")
    assert len(outcomes[0]) == 2
    assert [(one.title, one.text, one.score) for one in outcomes[1]] == [("Oslo", "In Norway.", 0.0)] * 3
    assert outcomes[1][0].id == outcomes[1][1].id != ""
    assert (outcomes[2][0].title, outcomes[2][0].text) == ("", "Only words.")
    assert outcomes[3] == []


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ([None], "ServerDisconnectedError"),
        ([[b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", None]], "ClientPayloadError"),
        ([b"SMTP? 220 hello\r\n\r\n"], "ClientResponseError|BadHttpMessage|BadStatusLine"),
        ([reply({"error": "sorry"}, status=400)], "status 400: .*sorry"),
        ([reply(b"", status=302, Location="http://192.0.2.1/")], "status 302"),
        ([reply(b"busy", status=503)], "asked once, no answer: URL: status 503: busy"),
    ],
)
def test_a_broken_connection_or_a_status_is_named(script, why):
    assert re.search(why, cause(script))


def test_an_answer_that_is_longer_than_it_says_is_not_believed():
    whole = json.dumps(found(["q"])).encode()
    assert "no answer" in cause([reply(whole, Content_Length=len(whole) - 3)])


def test_a_slow_server_is_named():
    started = time.monotonic()
    assert "gave no answer within 0.2 s" in cause([30.0], attempt_s=0.2)
    drip = [b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"] + [b" ", 0.05] * 100
    assert "gave no answer within 0.2 s" in cause([drip], attempt_s=0.2)
    assert time.monotonic() - started < 3


def test_nobody_listens():
    (outcome,) = search(HttpRetriever(url="http://127.0.0.1:1", **QUICK), "q")
    assert "http://127.0.0.1:1: asked once, no answer: http://127.0.0.1:1: ClientConnectorError" in str(outcome)


def test_it_works_behind_gather():
    with serving(PLACES) as served:
        gather = Gather(HttpRetriever(url=served.url))

        async def episodes():
            asked = [gather.search(["capital of France", f"q{number % 5}"], 3) for number in range(20)]
            return await asyncio.gather(*asked)

        outcomes = asyncio.run(episodes())
        counted = served.ask("/metrics")[2]
    assert all(len(first) == 3 and second == [] for first, second in outcomes)
    assert not gather.in_process  # the engine goes on decoding meanwhile
    assert 'forage_requests_total{path="/v1/search",status="200"} 1\n' in counted
    assert "forage_queries_total 6\n" in counted


def test_options_are_typed():
    given = arguments("search", "http", {"url": ["http://a", "http://b"], "hedge": 95})
    assert (given["url"], given["hedge"], given["api"]) == (("http://a", "http://b"), 95, "forage")
    assert arguments("search", "http", {"url": "http://a"})["url"] == "http://a"
    for wrong in ({}, {"url": "http://a", "api": "soap"}, {"url": "http://a", "retries": -1}, {"url": 3}):
        with pytest.raises(ConfigError):
            arguments("search", "http", wrong)


@pytest.mark.parametrize("url", ["", " , ", "127.0.0.1:8000", "ftp://a", "http://", "http://me:pw@a", "http://a?k=1"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ConfigError, match="url"):
        HttpRetriever(url=url)


def test_hedging_needs_a_second_server():
    with pytest.raises(ConfigError, match="hedge = 95 asks a second server"):
        HttpRetriever(url="http://127.0.0.1:1", hedge=95)
