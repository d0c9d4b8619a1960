"""OpenSearch, from a server on loopback that answers as documented: loading in bulk, asking, and troubles."""

import asyncio

import numpy as np
import pytest
from engines_elsewhere import OpenSearchFake
from http_server import reply, serving

from forage.clients.rest import Login, Rest
from forage.errors import ConfigError, DataError, RetrieverError, ServiceError
from forage.indexing.embedded import EncodedNow
from forage.indexing.encoding import NamedEncoder
from forage.indexing.mappings import schema
from forage.indexing.opensearch import load_opensearch
from forage.retrievers.multisearch import inner_product
from forage.retrievers.opensearch import OpenSearch
from forage.types import Passage

PASSAGES = [
    Passage("p/1", "Zuka Mills", "Zuka Mills was founded by Kane Bilo."),
    Passage("p2", "Kane Bilo", "Kane Bilo was born in Tavero. 😀 </information>"),
    Passage("p3", "Tavero", "Tavero lies in Beloria."),
    Passage("p4", "Beloria", "Beloria has salt. Kane who?"),
]


async def nap(seconds):
    pass


def run(fake, passages=PASSAGES, queries=(), k=3, loading=None, asking=None):
    """How many were loaded (None: nothing was), the outcomes of queries, and the server."""

    async def main():
        async with serving(fake) as server:
            loaded, outcomes = None, None
            if passages is not None:
                loaded = await load_opensearch(passages, server.url, "corpus", sleep=nap, **loading or {})
            if queries:
                engine = OpenSearch((), sleep=nap, url=server.url, index="corpus", **asking or {})
                outcomes = await engine.search(queries, k)
            return loaded, outcomes, server

    return asyncio.run(main())


def test_what_is_loaded_is_found():
    fake = OpenSearchFake()
    loaded, outcomes, server = run(fake, queries=["founded mills", "kane", "nothing of the kind, xyz", " "])
    assert loaded == 4
    assert [passage.id for passage in outcomes[0]] == ["p/1"]
    assert [(passage.id, passage.score) for passage in outcomes[1]] == [("p2", 2.0), ("p/1", 1.0), ("p4", 1.0)]
    assert outcomes[1][0] == Passage("p2", "Kane Bilo", PASSAGES[1].text, 2.0)
    assert outcomes[2:] == [[], []]
    assert fake.schema["settings"]["index"]["refresh_interval"] is None
    assert fake.schema["mappings"] == schema()["mappings"]
    assert len([asked for asked in server.asked if asked.path == "/corpus/_msearch"]) == 1


def test_a_server_is_there_whatever_it_answers_first():
    assert run(OpenSearchFake(trouble={"/": reply("forbidden", 403)}))[0] == 4

    async def silent(writer):
        await asyncio.sleep(9)

    async def main():
        async with serving(lambda asked: silent) as server:
            rest = Rest(server.url, Login(), extra="opensearch", timeout_s=9, retries=9, concurrency=1)
            with pytest.raises(ServiceError, match=r"nobody answers at .* \(no reply within 0\.1 s\)"):
                await rest.check(within_s=0.1)

    asyncio.run(main())


def test_batches_are_as_large_as_asked_and_told_of():
    told = []
    fake = OpenSearchFake()
    many = [Passage(str(i), "", f"text {i}") for i in range(25)]
    run(fake, many, loading={"batch": 4, "progress": told.append})
    assert (fake.bulks, told) == (7, [8, 16, 24, 25])
    assert [fake.documents[str(i)]["row"] for i in range(25)] == list(range(25))
    fake = OpenSearchFake()
    run(fake, [Passage(str(i), "", "x" * 1000) for i in range(10)], loading={"batch_bytes": 3500})
    assert fake.bulks == 4
    _, outcomes, server = run(OpenSearchFake(), many, queries=[f"text {i}" for i in range(25)], asking={"batch": 10})
    assert all(len(outcome) == 3 for outcome in outcomes)
    assert [len(asked.lines) for asked in server.asked if asked.path == "/corpus/_msearch"] == [20, 20, 10]


def test_what_is_rejected_is_sent_again_and_nothing_else():
    fake = OpenSearchFake(rejected=5)
    many = [Passage(str(i), "", f"text {i}") for i in range(8)]
    assert run(fake, many)[0] == 8
    assert fake.bulks == 2
    with pytest.raises(ServiceError, match="rejected 4 passages 3 times: it is too busy"):
        run(OpenSearchFake(rejected=10**6), loading={"retries": 2})


@pytest.mark.parametrize(
    ("passages", "fake", "said"),
    [
        ([Passage("bad", "", "unparsable")], OpenSearchFake(), "refuses the passage 'bad': .*failed to parse"),
        ([Passage("x" * 600, "", "")], OpenSearchFake(), "longer than 512 bytes"),
        ([PASSAGES[0], PASSAGES[0]], OpenSearchFake(), "holds 1 passages after 2 were loaded; do two share an id"),
    ],
)
def test_what_can_not_be_loaded_is_named(passages, fake, said):
    with pytest.raises(DataError, match=said):
        run(fake, passages)


def test_an_index_that_exists_is_left_alone_or_gone_on_with():
    fake = OpenSearchFake()
    run(fake, PASSAGES[:2])
    with pytest.raises(ConfigError, match="has an index 'corpus' already"):
        run(fake)
    assert run(fake, loading={"resume": True})[0] == 4
    assert len(fake.documents) == 4


def test_a_bulk_that_answers_for_fewer_is_an_error():
    short = {"/corpus/_bulk": reply({"errors": False, "items": [{"index": {"status": 201}}]})}
    with pytest.raises(ServiceError, match="answered for 1 of 4 passages"):
        run(OpenSearchFake(trouble=short))


def test_one_query_that_fails_is_not_its_neighbours():
    queries = ["kane", "toomany words", "halfgone kane", "toolate kane", "tavero"]
    outcomes = run(OpenSearchFake(), queries=queries)[1]
    assert [type(outcome) for outcome in outcomes] == [list, RetrieverError, RetrieverError, RetrieverError, list]
    for outcome, said in zip(
        outcomes[1:4], ["too_many_clauses: maxClause", "1 of 2 shards", "ran out of time"], strict=True
    ):
        assert said in str(outcome)
        assert "http://127.0.0.1" in str(outcome)


HITS = {"_shards": {"failed": 0}, "timed_out": False}


@pytest.mark.parametrize(
    "answer",
    [
        *({}, [], None, "x", {"responses": []}, {"responses": [3]}, {"responses": [{}]}, {"responses": [[], []]}),
        {"responses": [HITS | {"hits": {"hits": [{"_id": "a", "_score": 1, "_source": {}}]}}]},
        {"responses": [HITS | {"hits": {"hits": [{"_id": "a", "_score": None, "_source": {"text": "a"}}]}}]},
        {"responses": [HITS | {"hits": {"hits": [{"_id": "a", "_score": 1, "_source": {"text": 3}}]}}]},
        {"responses": [HITS | {"hits": {"hits": [{"_id": "a", "_score": 1, "_source": {"text": "a"}}] * 9}}]},
        *(
            {"responses": [HITS | {"hits": {"hits": [{"_id": "a", "_score": score, "_source": {"text": "a"}}]}}]}
            for score in (float("nan"), float("inf"), "1.5", True)
        ),
        {"responses": [HITS | {"hits": {"hits": ["a"]}}]},
        "[" * 100_000,
    ],
)
def test_an_answer_that_is_none_is_a_failure(answer):
    said = reply(answer) if not isinstance(answer, str) else reply(answer, Content_Type="application/json")
    fake = OpenSearchFake(trouble={"/corpus/_msearch": said})
    (outcome,) = run(fake, None, ["kane"], asking={"retries": 1})[1]
    assert isinstance(outcome, RetrieverError)
    assert "asked 2 times" in str(outcome)


def hit(name, text="a"):
    return {"_id": name, "_score": 1.0, "_source": {"text": text}}


@pytest.mark.parametrize(
    ("hits", "said"),
    [([hit("a"), hit("b"), hit("a")], "the passage 'a' twice"), ([hit("a"), hit("b", " ")], "the passage 'b' without")],
)
def test_passages_that_come_twice_or_without_text_are_a_failure_of_their_query(hits, said):
    responses = [HITS | {"hits": {"hits": given}} for given in ([hit("a")], hits)]
    trouble = {"/corpus/_msearch": reply({"responses": responses})}
    _, (right, wrong), server = run(OpenSearchFake(trouble=trouble), None, ["kane", "tavero"])
    assert [passage.id for passage in right] == ["a"]
    assert isinstance(wrong, RetrieverError)
    assert f"the search for 'tavero' failed at {server.url}: it gave {said}" in str(wrong)
    assert len(server.asked) == 1


@pytest.mark.parametrize(("status", "times"), [(404, 1), (401, 1), (429, 3), (503, 3)])
def test_a_status_is_a_failure_of_every_query(status, times):
    gone = reply({"error": {"type": "index_not_found_exception"}, "status": status}, status)
    _, outcomes, server = run(
        OpenSearchFake(trouble={"/corpus/_msearch": gone}), None, ["a", "b"], asking={"retries": 2}
    )
    assert all(isinstance(outcome, RetrieverError) and f"status {status}" in str(outcome) for outcome in outcomes)
    assert len(server.asked) == times


def test_several_fields_of_an_index_of_ones_own():
    trouble = {
        "/my%2Findex/_msearch": reply(
            {
                "responses": [
                    HITS
                    | {"hits": {"hits": [{"_id": 7, "_score": 1.5, "_source": {"name": "Zuka", "body": "Founded."}}]}}
                ]
            }
        )
    }

    async def main():
        async with serving(OpenSearchFake(trouble=trouble)) as server:
            engine = OpenSearch(
                (), url=server.url, index="my/index", fields=("name", "body^2"), title_field="name", text_field="body"
            )
            return await engine.search(["zuka"], 3), server.asked[0].lines[1]

    outcomes, body = asyncio.run(main())
    assert outcomes == [[Passage("7", "Zuka", "Founded.", 1.5)]]
    assert body["query"] == {"multi_match": {"query": "zuka", "fields": ["name", "body^2"]}}
    assert body["_source"] == ["name", "body"]


def test_who_we_are_is_read_from_the_environment_and_said_to_nobody_else():
    refused = OpenSearchFake(trouble={"/corpus/_msearch": reply("no such s3cret", 401)})

    async def asked(**names):
        async with serving(refused) as server:
            environment = {"OS_USER": "user", "OS_PASSWORD": "s3cret", "OS_KEY": "s3cret"}
            outcomes = await OpenSearch((), environment, url=server.url, index="corpus", **names).search(["a"], 1)
            assert "s3cret" not in str(outcomes[0])
            return server.asked[0].headers["authorization"]

    assert asyncio.run(asked(user_env="OS_USER", password_env="OS_PASSWORD")) == "Basic dXNlcjpzM2NyZXQ="
    assert asyncio.run(asked(api_key_env="OS_KEY")) == "ApiKey s3cret"
    for login in (Login("A"), Login("A", "B", "C"), Login(api_key_env="NONE")):
        with pytest.raises(ConfigError):
            login.headers({"A": "a", "B": "b", "C": "c"})


class Topics:
    """An encoder: which of three words is said, and how often; queries that mean salt say brine."""

    dimensions = 3

    def __init__(self, *, scale: float = 1.0):
        self.settings = {"scale": scale}

    def encode_passages(self, texts):
        words = ("Kane", "Tavero", "salt")
        return np.array([[text.count(word) * self.settings["scale"] for word in words] for text in texts])

    def encode_queries(self, texts):
        return self.encode_passages([text.replace("brine", "salt") for text in texts])


TOPICS = "test_opensearch:Topics"


def topics(**options):
    return EncodedNow(NamedEncoder(TOPICS, options))


def test_what_is_loaded_with_vectors_is_found_by_meaning_and_by_both():
    fake = OpenSearchFake()
    near = {"mode": "knn", "ef": 200}
    _, (brine, kane, blank), server = run(
        fake, queries=["brine", "Kane", " "], k=2, loading={"vectors": topics()}, asking=near
    )
    assert [(p.id, p.score) for p in brine] == [("p4", pytest.approx(1.0)), ("p/1", pytest.approx(0.0))]
    assert [(p.id, p.score) for p in kane] == [("p2", pytest.approx(2.0)), ("p/1", pytest.approx(1.0))]
    assert blank == []
    body = next(one for one in server.asked if one.path == "/corpus/_msearch").lines[1]
    assert body["query"]["knn"]["vector"] == {"vector": [0, 0, 1], "k": 2, "method_parameters": {"ef_search": 200}}
    assert "vector" not in body["_source"]
    assert fake.schema["settings"]["index"]["knn"] is True
    assert fake.schema["mappings"]["properties"]["vector"] == {
        "type": "knn_vector",
        "dimension": 3,
        "method": {
            "name": "hnsw",
            "engine": "faiss",
            "space_type": "innerproduct",
            "parameters": {"m": 16, "ef_construction": 128},
        },
    }
    asking = {"mode": "hybrid"}
    _, (both,), server = run(fake, None, ["brine Kane Bilo"], k=4, asking=asking)
    ranks = {"p2": (1, 1), "p/1": (2, 3), "p4": (3, 2), "p3": (None, 4)}
    scores = {name: sum(1 / (60 + rank) for rank in pair if rank) for name, pair in ranks.items()}
    assert [(p.id, p.score) for p in both] == [
        (name, pytest.approx(score, rel=1e-6)) for name, score in sorted(scores.items(), key=lambda one: -one[1])
    ]
    assert both[0].text == PASSAGES[1].text
    assert len([one for one in server.asked if one.path == "/corpus/_msearch"]) == 1
    weighted = asking | {"fusion": "weighted", "lexical_weight": 0.5}
    (found,) = run(fake, None, ["brine"], k=1, asking=weighted)[1]
    assert [passage.id for passage in found] == ["p4"]


def test_a_part_that_fails_is_a_failed_search():
    fake = OpenSearchFake()
    outcomes = run(fake, queries=["halfgone", "brine"], loading={"vectors": topics()}, asking={"mode": "hybrid"})[1]
    assert [type(outcome) for outcome in outcomes] == [RetrieverError, list]
    fake.trouble = {"/corpus/_mapping": reply({"error": {"type": "index_not_found_exception"}}, 404)}
    (outcome,) = run(fake, None, ["brine"], asking={"mode": "knn"})[1]
    assert isinstance(outcome, RetrieverError)


def test_another_encoder_than_that_of_the_index_is_refused():
    fake = OpenSearchFake()
    run(fake, loading={"vectors": topics(scale=2.0)})
    (found,) = run(fake, None, ["brine"], k=1, asking={"mode": "knn"})[1]
    assert found[0].score == pytest.approx(4.0)  # the scale is the index's
    for asking, said in [
        ({"encoder": "test_qdrant:Counts"}, "was encoded by 'test_opensearch:Topics', not by"),
        ({"encoder_options": {"scale": 3.0}}, "its scale differ"),
        ({"encoder_options": {"size": 3.0}}, "encoder.size"),
    ]:
        with pytest.raises(ConfigError, match=said):
            run(fake, None, ["brine"], asking={"mode": "knn"} | asking)
    with pytest.raises(ConfigError, match="what is to be loaded has others"):
        run(fake, loading={"vectors": topics(), "resume": True})
    fake = OpenSearchFake()
    run(fake)
    with pytest.raises(ConfigError, match="name its encoder"):
        run(fake, None, ["brine"], asking={"mode": "hybrid"})
    with pytest.raises(ConfigError, match="has no vectors"):
        run(fake, loading={"vectors": topics(), "resume": True})


def test_what_is_there_is_not_encoded_again():
    fake = OpenSearchFake()
    many = [Passage(str(i), "", f"text {i}") for i in range(25)]
    run(fake, many[:13], loading={"vectors": topics(), "batch": 4})
    del fake.documents["9"]
    bulks = fake.bulks
    assert run(fake, many, loading={"vectors": topics(), "batch": 4, "resume": True})[0] == 25
    assert (fake.bulks - bulks, len(fake.documents)) == (4, 25)


@pytest.mark.parametrize(
    ("asking", "said"),
    [
        ({"encoder": TOPICS}, r"search\.encoder does nothing"),
        ({"ef": 3, "mode": "bm25"}, r"search\.ef does nothing"),
        ({"fusion": "rrf", "mode": "knn"}, r"search\.fusion does nothing"),
        ({"lexical_weight": 0.0, "mode": "knn"}, r"search\.lexical_weight does nothing"),
        ({"lexical_weight": 0.5, "mode": "hybrid"}, "set fusion=weighted"),
        ({"encoder": "nowhere:Encoder", "mode": "knn"}, "no module 'nowhere'"),
    ],
)
def test_options_that_do_nothing_in_a_mode_are_refused(asking, said):
    with pytest.raises(ConfigError, match=said):
        OpenSearch((), {}, url="http://localhost:9200", index="corpus", **asking)


def test_scores_of_vectors_are_inner_products():
    for product in (-3.0, -0.25, 0.0, 0.5, 12.0):
        assert inner_product(1 + product if product >= 0 else 1 / (1 - product)) == pytest.approx(product)
    with pytest.raises(ValueError, match="a score of 0"):
        inner_product(0)
