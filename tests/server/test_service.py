"""The service over real connections: both protocols, limits, and what it says of itself."""

import concurrent.futures
import http.client
import json
import socket
import threading
import time
from contextlib import suppress

import httpx2
import pytest
from http_service import PLACES, Shelf, passage, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from forage.errors import ConfigError, RetrieverError
from forage.server.board import PATHS, Board
from forage.server.keeper import Opened
from forage.server.limits import Limits
from forage.types import Passage

PARIS = {"queries": ["capital of France"]}


@pytest.fixture(scope="module")
def served():
    with serving(PLACES) as service:
        yield service


def test_the_reference_clients_code_works_unchanged(served):
    queries, url = ["capital of France", "capital of France", "unknown"], served.url + "/retrieve"
    payload = {"queries": queries, "topk": 2, "return_scores": True}
    result = httpx2.post(url, json=payload).json()["result"]
    contents = [[hit["document"]["contents"] for hit in hits] for hits in result]
    assert contents == [['"Paris"\nParis is a place.', '"Lyon"\nLyon is a place.']] * 2 + [[]]
    title, _, text = contents[0][0].partition("\n")
    assert (title, text) == ('"Paris"', "Paris is a place.")


def test_skyrl_asks_one_query_and_reads_a_list_of_lists(served):
    payload = {"query": "capital of France", "topk": 1, "return_scores": True}
    result = httpx2.post(served.url + "/retrieve", json=payload).json()["result"]
    assert [[hit["document"]["contents"] for hit in hits] for hits in result] == [['"Paris"\nParis is a place.']]


@pytest.mark.parametrize("scores", [{}, {"return_scores": False}, {"return_scores": None}])
def test_without_scores_the_documents_stand_where_they_do_with_them(served, scores):
    status, _, body = served.ask("/retrieve", PARIS | {"topk": 1} | scores)
    hit = {"id": "paris", "contents": '"Paris"\nParis is a place.', "title": "Paris", "text": "Paris is a place."}
    assert (status, body) == (200, {"result": [[{"document": hit}]]})


def test_the_own_protocol(served):
    status, headers, body = served.ask("/v1/search", PARIS | {"k": 1})
    assert (status, headers["content-type"]) == (200, "application/json")
    assert body == {"results": [[{"id": "paris", "title": "Paris", "text": "Paris is a place.", "score": 0.875}]]}
    assert len(served.ask("/v1/search", PARIS)[2]["results"][0]) == 3


def test_no_queries_have_no_results(served):
    assert served.ask("/v1/search", {"queries": []})[2] == {"results": []}
    assert served.ask("/retrieve", {"queries": []})[2] == {"result": []}


def test_what_it_says_of_itself(served):
    assert served.ask("/health")[::2] == (200, {"status": "ok"})
    assert served.ask("/ready")[0] == 200
    info = served.ask("/v1/info")[2]
    assert (info["service"], info["index"], info["limits"]["max_k"]) == ("forage", {"kind": "shelf"}, 100)


def test_the_description_is_valid_and_names_every_path(served):
    described = served.ask("/openapi.json")[2]
    validate(described)
    assert set(described["paths"]) == set(PATHS) - {"other"}
    for path, methods in described["paths"].items():
        (method,) = methods
        assert served.ask(path, b"{}" if method == "post" else None)[0] != 404


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/search", b"{", 400, "no_json"),
        ("/v1/search", b"\xff\xfe", 400, "no_json"),
        ("/v1/search", b'{"queries": ["\\ud800"]}', 400, "no_json"),
        ("/v1/search", b"[" * 100_000, 422, "invalid"),
        ("/v1/search", {"queries": "capital"}, 422, "invalid"),
        ("/v1/search", PARIS | {"k": 0}, 422, "invalid"),
        ("/v1/search", PARIS | {"k": "3"}, 422, "invalid"),
        ("/v1/search", PARIS | {"topk": 3}, 422, "invalid"),
        ("/v1/search", PARIS | {"k": 101}, 422, "max_k"),
        ("/retrieve", PARIS | {"topk": 10**30}, 422, "max_k"),
        ("/retrieve", PARIS | {"topk": -1}, 422, "invalid"),
        ("/v1/search", {"queries": ["x" * 10_001]}, 422, "max_query_chars"),
        ("/v1/search", {"queries": ["x"] * 8193}, 422, "max_queries"),
        ("/nowhere", None, 404, "not_found"),
        ("/v1/search", None, 405, "method"),
        ("/health", b"", 405, "method"),
    ],
)
def test_what_is_wrong_is_refused_by_name(served, path, body, status, code):
    got, _, answer = served.ask(path, body)
    assert (got, answer["error"]["code"]) == (status, code)
    if code.startswith("max"):
        assert answer["error"]["limit"] == getattr(Limits(), code)
        assert code in answer["error"]["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
BODIES = JSON | st.fixed_dictionaries(
    {"queries": st.lists(st.text(max_size=20), max_size=4) | JSON},
    optional={"k": JSON, "topk": JSON, "return_scores": JSON},
)


@settings(max_examples=150, deadline=None)
@given(BODIES, st.sampled_from(["/v1/search", "/retrieve"]))
def test_any_json_is_answered_or_refused(served, body, path):
    status, _, answer = served.ask(path, json.dumps(body).encode())
    if status == 200:
        assert len(answer["results" if path == "/v1/search" else "result"]) == len(body["queries"])
    else:
        assert 400 <= status < 500
        assert answer["error"]["message"]


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused(served, body):
    assert 400 <= served.ask("/v1/search", body)[0] < 500


def test_a_body_above_the_limit_is_refused():
    with serving(PLACES, limits=Limits(max_request_bytes=1000)) as small:
        for size in (1001, 3_000):
            status, _, answer = small.ask("/v1/search", b"x" * size)
            assert (status, answer["error"]["code"], answer["error"]["limit"]) == (413, "max_request_bytes", 1000)
        assert small.ask("/v1/search", PARIS)[0] == 200


def test_a_request_that_drips_is_given_up():
    with serving(PLACES, limits=Limits(read_s=0.2)) as quick:
        host, port = quick.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as drip:
            drip.sendall(b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            reply = http.client.HTTPResponse(drip)
            reply.begin()
            assert (reply.status, json.loads(reply.read())["error"]["code"]) == (408, "read_s")


def test_who_connects_and_sends_no_request_is_hung_up_on():
    with serving(PLACES, limits=Limits(read_s=0.2)) as quick:
        host, port = quick.url.removeprefix("http://").split(":")
        for sent in (b"", b"POST /v1/se", b"POST /v1/search HTTP/1.1\r\nHost: x\r\nX: "):
            with socket.create_connection((host, int(port)), timeout=5) as drip:
                drip.sendall(sent)
                assert drip.recv(100) == b""


def test_who_does_not_read_is_hung_up_on():
    big = Shelf({"big": [Passage("1", "Big", "x" * 20_000_000)]})
    with serving(big, limits=Limits(read_s=0.3)) as quick:
        host, port = quick.url.removeprefix("http://").split(":")
        body = b'{"queries":["big"]}'
        with socket.create_connection((host, int(port)), timeout=5) as idle:
            idle.sendall(b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            time.sleep(1.0)
            received = 0
            with suppress(ConnectionResetError):  # after what was on its way
                while part := idle.recv(2**20):
                    received += len(part)
        assert received < 20_000_000
        assert quick.ask("/health")[0] == 200


def test_who_reads_slowly_gets_all_of_it():
    big = Shelf({"big": [Passage("1", "Big", "x" * 10_000_000)]})
    with serving(big, limits=Limits(read_s=0.3)) as quick:
        host, port = quick.url.removeprefix("http://").split(":")
        client = http.client.HTTPConnection(host, int(port), timeout=5)
        client.request("POST", "/v1/search", b'{"queries":["big"]}')
        reply, received = client.getresponse(), 0
        while part := reply.read(500_000):
            received += len(part)
            time.sleep(0.05)
        client.close()
    assert received > 10_000_000


def test_an_index_that_is_slow_is_not_waited_for():
    with serving(Shelf({}, delay_s=0.3), limits=Limits(answer_s=0.05)) as slow:
        status, _, answer = slow.ask("/v1/search", PARIS)
        assert (status, answer["error"]["code"]) == (504, "answer_s")
        assert slow.ask("/health")[0] == 200


def test_more_than_may_wait_are_refused_with_a_time_to_come_again():
    index = Shelf({}, delay_s=0.3)
    with serving(index, limits=Limits(max_queue=4, max_queries=4)) as busy:
        threads = [threading.Thread(target=busy.ask, args=("/v1/search", {"queries": [one]})) for one in "abcde"]
        for thread in threads:
            thread.start()
            time.sleep(0.03)
        status, headers, answer = busy.ask("/v1/search", {"queries": ["x"]})
        ready = busy.ask("/ready")
        assert (status, headers["retry-after"], answer["error"]["code"]) == (429, "1", "max_queue")
        assert (ready[0], busy.ask("/health")[0]) == (503, 200)
        for thread in threads:
            thread.join()
        assert busy.ask("/ready")[0] == 200


def test_what_queues_during_a_call_goes_into_the_next_one():
    index = Shelf({}, delay_s=0.2, batch_size=32)
    with serving(index) as served, concurrent.futures.ThreadPoolExecutor(16) as clients:
        first = clients.submit(served.ask, "/v1/search", {"queries": ["first"]})
        while not index.calls:
            time.sleep(0.01)
        asked = [{"queries": [f"q{number % 10}"]} for number in range(15)]
        rest = [clients.submit(served.ask, "/v1/search", body) for body in asked]
        assert all(one.result()[0] == 200 for one in [first, *rest])
    assert index.calls[0] == ["first"]
    assert sorted(index.calls[1]) == [f"q{number}" for number in range(10)]  # each once
    assert len(index.calls) == 2


def test_what_was_asked_before_comes_from_the_cache():
    index = Shelf(PLACES.found)
    with serving(index) as served:
        answers = [served.ask("/v1/search", PARIS)[2] for _ in range(3)]
        assert served.ask("/v1/search", PARIS | {"k": 1})[2] != answers[0]
        counted = served.ask("/metrics")[2]
    assert answers[0] == answers[1] == answers[2]
    assert len(index.calls) == 2
    assert "forage_cache_hits_total 2\n" in counted
    assert 'forage_requests_total{path="/v1/search",status="200"} 4\n' in counted


def test_without_a_cache_everything_is_asked():
    index = Shelf(PLACES.found)
    with serving(index, limits=Limits(cache_mb=0)) as served:
        for _ in range(2):
            served.ask("/v1/search", PARIS)
    assert len(index.calls) == 2


def test_a_search_that_fails_fails_alone():
    found = {"good": [passage("Good")], "bad": RetrieverError("the disk is gone"), "odd": ValueError("odd")}
    with serving(Shelf(found)) as served:
        status, _, answer = served.ask("/v1/search", {"queries": ["good", "bad", "odd"]})
        assert status == 200
        assert [bool(one) for one in answer["results"]] == [True, False, False]
        assert answer["results"][1] is None
        messages = {one["index"]: one["message"] for one in answer["errors"]}
        assert messages == {1: "the disk is gone", 2: "ValueError: odd"}
        status, _, answer = served.ask("/v1/search", {"queries": ["bad"]})
        assert (status, answer["error"]["code"]) == (500, "search_failed")
        assert "the disk is gone" in answer["error"]["message"]
        status, _, answer = served.ask("/retrieve", {"queries": ["good", "bad"], "return_scores": True})
        assert (status, "the disk is gone" in answer["error"]["message"]) == (500, True)


@pytest.mark.parametrize(
    "wrong", [Passage("a", "A", "text", float("nan")), Passage("a", "A", None), "Paris", Passage("a", "A", "b", None)]
)
def test_what_is_no_passage_is_an_error(wrong):
    with serving(Shelf({"x": [wrong]})) as served:
        status, _, answer = served.ask("/v1/search", {"queries": ["x"]})
        assert (status, answer["error"]["code"]) == (500, "search_failed")


def test_missing_hits_and_half_characters_never_become_a_passage():
    hits = [Passage("a", "A\ud800", "B\n\udfff", 1.0), Passage("z", "Z", "last", -3.4028234663852886e38)]
    with serving(Shelf({"x": hits})) as served:
        (found,) = served.ask("/v1/search", {"queries": ["x"]})[2]["results"]
        assert found == [{"id": "a", "title": "A?", "text": "B\n?", "score": 1.0}]


def test_an_index_with_the_wrong_number_of_results_fails():
    class Half:
        def lookup(self, queries, k):
            return []

    with serving(Half()) as served:
        assert "0 results for 1 queries" in served.ask("/v1/search", {"queries": ["x"]})[2]["error"]["message"]


def test_k_beyond_the_corpus_gives_all_of_it():
    class Small(Shelf):
        def __len__(self):
            return 2

        def lookup(self, queries, k):
            if k > 2:
                raise ConfigError("k is too large")
            return super().lookup(queries, k)

    with serving(Small(PLACES.found)) as served:
        assert len(served.ask("/v1/search", PARIS | {"k": 50})[2]["results"][0]) == 2


def test_with_a_token_nothing_is_told_without_it():
    with serving(PLACES, token="s3cret") as served:
        for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}):
            for path, body in (("/v1/search", PARIS), ("/retrieve", PARIS), ("/metrics", None), ("/v1/info", None)):
                status, told, _ = served.ask(path, body, headers)
                assert (status, told["www-authenticate"]) == (401, "Bearer")
        assert served.ask("/v1/search", PARIS, {"Authorization": "Bearer s3cret"})[0] == 200
        assert served.ask("/health")[0] == 200
        validate(served.ask("/openapi.json", headers={"Authorization": "Bearer s3cret"})[2])


def test_until_the_index_is_open_it_says_so():
    go = threading.Event()

    def open_slowly():
        go.wait(10)
        return Opened(PLACES)

    with serving(open_slowly, wait=False) as served:
        while True:
            try:
                early = [served.ask("/health"), served.ask("/v1/search", PARIS), served.ask("/v1/info")]
                break
            except OSError:
                time.sleep(0.01)
        go.set()
        while served.ask("/health")[0] != 200:
            time.sleep(0.01)
    assert [status for status, _, _ in early] == [503] * 3
    assert "being opened" in early[1][2]["error"]["message"]


def test_an_index_that_cant_be_opened_is_named():
    def fail():
        raise ConfigError("truncated: build it again")

    told = []
    with serving(fail, wait=False, on_failure=told.append) as served:
        while not told:
            time.sleep(0.01)
        status, _, answer = served.ask("/v1/search", PARIS)
    assert (status, told) == (503, ["truncated: build it again"])
    assert "truncated: build it again" in answer["error"]["message"]


def test_an_index_that_goes_from_the_disk_is_missed_and_still_answers(tmp_path):
    file = tmp_path / "index.json"
    file.write_text("{}")
    with serving(lambda: Opened(PLACES, {}, file)) as served:
        file.unlink()
        ends = time.monotonic() + 8
        while "forage_index_missing 1\n" not in served.ask("/metrics")[2] and time.monotonic() < ends:
            time.sleep(0.1)
        assert served.ask("/v1/search", PARIS)[0] == 200
        assert served.events[-1]["event"] == "index_changed"
        assert served.events[-1]["now"] == "missing"


def test_clients_that_hang_up_leave_nothing_behind():
    index = Shelf({}, delay_s=0.05)
    with serving(index) as served:
        host, port = served.url.removeprefix("http://").split(":")
        body = json.dumps({"queries": ["x"]}).encode()
        whole = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        for cut in (10, 40, len(whole) - 5, len(whole)) * 5:
            with socket.create_connection((host, int(port))) as client:
                client.sendall(whole[:cut])
        quiet = ("forage_in_flight 1\n", "forage_queue 0\n")  # the one is that which asks for the metrics
        ends = time.monotonic() + 5
        while any(line not in served.ask("/metrics")[2] for line in quiet):
            assert time.monotonic() < ends
            time.sleep(0.02)
        assert served.ask("/v1/search", PARIS)[0] == 200


def test_a_stopped_service_ends_what_it_is_in():
    answers = []
    with serving(Shelf(PLACES.found, delay_s=0.4)) as served:
        thread = threading.Thread(target=lambda: answers.append(served.ask("/v1/search", PARIS)))
        thread.start()
        time.sleep(0.1)
    thread.join()
    assert answers[0][0] == 200
    assert len(answers[0][2]["results"][0]) == 3


def test_limits_that_make_no_sense_are_refused():
    for wrong in ({"k": 0}, {"k": 101}, {"max_queue": 5}, {"read_s": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Limits(**wrong)


def test_metrics_are_those_of_all_workers(tmp_path):
    file = tmp_path / "board"
    Board.create(file, 2)
    first, second = (Board(file, workers=2, row=row) for row in range(2))
    first.start()
    second.start()
    first.ready()
    assert not first.all_were_ready()
    second.ready()
    assert first.all_were_ready()
    first.answered("/retrieve", 200, 0.003)
    second.answered("/retrieve", 200, 0.3)
    second.answered("/etc/passwd", 404, 0.1)
    text = first.prometheus()
    assert 'forage_requests_total{path="/retrieve",status="200"} 2\n' in text
    assert 'forage_requests_total{path="other",status="404"} 1\n' in text
    assert 'forage_request_seconds_bucket{path="/retrieve",le="0.005"} 1\n' in text
    assert 'forage_request_seconds_bucket{path="/retrieve",le="+Inf"} 2\n' in text
    assert "forage_ready 2\n" in text
    again = Board(file, workers=2, row=1)
    again.start()  # what it counted stays, what it was is forgotten
    assert first.total("ready") == 1
    assert 'forage_requests_total{path="/retrieve",status="200"} 2\n' in first.prometheus()
