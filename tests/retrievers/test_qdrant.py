"""Qdrant, from a server on loopback that answers as documented: loading in bulk, asking, and troubles."""

import asyncio

import numpy as np
import pytest
from engines_elsewhere import QdrantFake
from http_server import reply, serving

from forage.errors import ConfigError, DataError, RetrieverError, ServiceError
from forage.indexing.embedded import EncodedNow
from forage.indexing.encoding import NamedEncoder
from forage.indexing.qdrant import load_qdrant
from forage.retrievers.qdrant import Qdrant
from forage.types import Passage

PASSAGES = [Passage(f"p{i}", name, f"About {name}.") for i, name in enumerate(["salt", "mills", "ships", "salt"])]
WORDS = ("salt", "mills", "ships")


class Counts:
    """An encoder: how often each of three words is said."""

    dimensions = 3

    def __init__(self, *, scale: float = 1.0):
        self.scale = scale

    def encode_queries(self, texts):
        return np.array([[text.count(word) * self.scale for word in WORDS] for text in texts])

    encode_passages = encode_queries


class Odd:
    """An encoder that gives what it is told to."""

    dimensions = 3
    given = None

    def encode_passages(self, texts):
        return type(self).given(texts)


async def nap(seconds):
    pass


def run(fake, passages=PASSAGES, queries=(), k=2, encoder="test_qdrant:Counts", loading=None, asking=None):
    async def main():
        async with serving(fake) as server:
            loaded, outcomes = None, None
            if passages is not None:
                vectors = EncodedNow(NamedEncoder(encoder, {}))
                loaded = await load_qdrant(passages, vectors, server.url, "corpus", sleep=nap, **loading or {})
            if queries:
                engine = Qdrant((), {"KEY": "s3cret"}, nap, url=server.url, collection="corpus", **asking or {})
                outcomes = await engine.search(queries, k)
            return loaded, outcomes, server

    return asyncio.run(main())


def test_what_is_loaded_is_found_ties_by_place():
    fake, told = QdrantFake(), []
    loaded, outcomes, server = run(fake, queries=["mills", "salt"], loading={"batch": 3, "progress": told.append})
    assert (loaded, told) == (4, [3, 4])
    assert fake.shape == {"size": 3, "distance": "Dot", "on_disk": True}
    assert outcomes[0][0] == Passage("p1", "mills", "About mills.", 2.0)
    assert [passage.id for passage in outcomes[1]] == ["p0", "p3"]
    assert len([asked for asked in server.asked if asked.path.endswith("/query/batch")]) == 1


def test_batches_settings_and_the_key_go_along():
    asking = {
        "batch": 2,
        "exact": True,
        "ef": 64,
        "using": "text",
        "api_key_env": "KEY",
        "encoder_options": {"scale": 2},
    }
    _, outcomes, server = run(QdrantFake(), queries=["salt", "mills", "ships"], asking=asking)
    assert [outcome[0].score for outcome in outcomes] == [4.0, 4.0, 4.0]
    asked = [one for one in server.asked if one.path.endswith("/query/batch")]
    assert [len(one.json["searches"]) for one in asked] == [2, 1]
    search = asked[0].json["searches"][0]
    assert (search["using"], search["params"], search["limit"]) == ("text", {"exact": True, "hnsw_ef": 64}, 2)
    assert asked[0].headers["api-key"] == "s3cret"


def test_a_collection_that_exists_is_left_alone_or_gone_on_with():
    fake = QdrantFake()
    run(fake, PASSAGES[:3])
    with pytest.raises(ConfigError, match="has a collection 'corpus' already"):
        run(fake)
    _, _, server = run(fake, loading={"resume": True})
    assert [len(asked.json["points"]) for asked in server.asked if asked.path.endswith("/points")] == [1]
    assert sorted(fake.points) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda texts: np.zeros((len(texts) + 1, 3)), r"vectors \[5, 3\] for 4 passages"),
        (lambda texts: np.zeros(len(texts)), r"vectors \[4\]"),
        (lambda texts: np.full((len(texts), 3), np.nan), "not finite"),
    ],
)
def test_vectors_that_are_none_are_refused(given, said):
    Odd.given = given
    with pytest.raises(DataError, match=said):
        run(QdrantFake(), encoder="test_qdrant:Odd")


def test_an_engine_that_refuses_or_loses_points_is_named():
    refused = reply({"status": {"error": "Wrong input: Vector dimension error"}, "time": 0.0}, 400)
    with pytest.raises(ServiceError, match="Vector dimension error"):
        run(QdrantFake(trouble={"/collections/corpus/points": refused}))
    lost = {"/collections/corpus/points": reply({"result": {"status": "completed"}, "status": "ok"})}
    with pytest.raises(DataError, match="holds 0 passages after 4 were loaded"):
        run(QdrantFake(trouble=lost))


def test_the_encoder_is_the_one_that_the_collection_was_loaded_with():
    fake = QdrantFake()
    run(fake)
    said = fake.metadata["forage"]["encoder"]
    assert (said["kind"], said["dimensions"]) == ("test_qdrant:Counts", 3)
    with pytest.raises(ConfigError, match="was encoded by 'test_qdrant:Counts', not by"):
        run(fake, None, ["salt"], asking={"encoder": "test_qdrant:Odd"})
    with pytest.raises(ConfigError, match="what is to be loaded has others"):
        run(fake, encoder="test_qdrant:Odd", loading={"resume": True})
    fake.metadata = {"forage": {"encoder": said | {"dimensions": 4}}}
    with pytest.raises(ConfigError, match="of 4 dimensions"):
        run(fake, None, ["salt"])
    gone = {"kind": "transformer", "options": {"path": "no/where/at/all"}, "settings": {}}
    fake.metadata = {"forage": {"encoder": said | gone}}
    with pytest.raises(ConfigError, match=r"no/where/at/all.* say so with search\.encoder_options\.path="):
        run(fake, None, ["salt"])
    fake.metadata = {"forage": {}}
    with pytest.raises(ConfigError, match="does not say how it was encoded"):
        run(fake, None, ["salt"])


def test_a_collection_that_says_nothing_is_asked_with_the_encoder_that_is_named():
    fake = QdrantFake()
    run(fake)
    fake.metadata = None
    with pytest.raises(ConfigError, match="name its encoder"):
        run(fake, None, ["salt"])
    (found,) = run(fake, None, ["salt"], asking={"encoder": "test_qdrant:Counts"})[1]
    assert [passage.id for passage in found] == ["p0", "p3"]


POINT = {"id": 1, "score": 1.0, "payload": {"id": "a", "title": "", "text": "a"}}


@pytest.mark.parametrize(
    "answer",
    [
        *({}, [], None, {"result": []}, {"result": [{}]}, {"result": [{"points": [3]}]}, {"result": [{"points": 3}]}),
        {"result": [{"points": [POINT] * 3}]},
        {"result": [{"points": [POINT | {"payload": None}]}]},
        {"result": [{"points": [POINT | {"payload": {"text": 3}}]}]},
        *({"result": [{"points": [POINT | {"score": score}]}]} for score in ("1.5", float("nan"), -float("inf"), True)),
    ],
)
def test_an_answer_that_is_none_is_a_failure(answer):
    trouble = {"/collections/corpus/points/query/batch": reply(answer)}
    (outcome,) = run(QdrantFake(trouble=trouble), queries=["salt"], asking={"retries": 1})[1]
    assert isinstance(outcome, RetrieverError)
    assert "asked 2 times" in str(outcome)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([POINT, POINT | {"id": 2, "payload": {"id": "2", "text": "b"}}, POINT], "it gave the passage '{}' twice"),
        ([POINT | {"payload": {"id": "2", "text": " "}}], "it gave the passage '2' without text"),
    ],
)
def test_passages_that_come_twice_or_without_text_are_a_failure_of_their_query(points, said):
    results = {"result": [{"points": [POINT]}, {"points": points}], "status": "ok"}
    trouble = {"/collections/corpus/points/query/batch": reply(results)}
    _, (right, wrong), server = run(QdrantFake(trouble=trouble), queries=["salt", "mills"], k=3)
    assert len(right) == 1
    assert isinstance(wrong, RetrieverError)
    assert f"the search for 'mills' failed at {server.url}: {said.format(right[0].id)}" in str(wrong)


def test_distances_put_the_nearest_first_with_scores_that_fall():
    far, near = POINT | {"score": 4.0, "payload": {"id": "b", "text": "b"}}, POINT | {"score": 0.5}
    trouble = {"/collections/corpus/points/query/batch": reply({"result": [{"points": [near, far]}], "status": "ok"})}
    (found,) = run(QdrantFake(trouble=trouble), queries=["salt"])[1]
    assert [passage.score for passage in found] == [-0.5, -4.0]


def test_a_failure_is_that_of_its_batch():
    gone = reply({"status": {"error": "Not found: Collection `corpus` doesn't exist!"}}, 404)
    for path in ("/collections/corpus/points/query/batch", "/collections/corpus"):
        fake = QdrantFake()
        run(fake)
        fake.trouble = {path: gone}
        outcomes = run(fake, None, ["salt", "mills", " "])[1]
        assert all("Collection `corpus` doesn't exist" in str(outcome) for outcome in outcomes[:2])
        assert outcomes[2] == []


def test_an_encoder_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="no module 'nowhere'"):
        Qdrant((), {}, url="http://localhost:6333", collection="c", encoder="nowhere:Encoder")
    with pytest.raises(ConfigError, match=r"encoder\.scal"):
        Qdrant(
            (),
            {},
            url="http://localhost:6333",
            collection="c",
            encoder="test_qdrant:Counts",
            encoder_options={"scal": 1},
        )
