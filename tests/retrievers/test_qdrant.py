"""Qdrant, from a server on loopback that answers as documented: loading in bulk, asking, and troubles."""

import asyncio

import numpy as np
import pytest
from engines_elsewhere import QdrantFake
from http_server import reply, serving

from forage.errors import ConfigError, DataError, RetrieverError, ServiceError
from forage.indexing.qdrant import load_qdrant
from forage.retrievers.qdrant import Qdrant
from forage.types import Passage

PASSAGES = [Passage(f"p{i}", name, f"About {name}.") for i, name in enumerate(["salt", "mills", "ships", "salt"])]
WORDS = ("salt", "mills", "ships")


class Counts:
    """An encoder: how often each of three words is said."""

    def __init__(self, *, scale: float = 1.0):
        self.scale = scale

    def encode(self, queries):
        return np.array([[query.count(word) * self.scale for word in WORDS] for query in queries])


async def nap(seconds):
    pass


def run(fake, passages=PASSAGES, queries=(), k=2, encode=None, loading=None, asking=None):
    async def main():
        async with serving(fake) as server:
            loaded, outcomes = None, None
            if passages is not None:
                encoder = encode or Counts().encode
                loaded = await load_qdrant(passages, encoder, server.url, "corpus", sleep=nap, **loading or {})
            if queries:
                options = {"encoder": "test_qdrant:Counts"} | (asking or {})
                engine = Qdrant((), {"KEY": "s3cret"}, nap, url=server.url, collection="corpus", **options)
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
    ("encode", "said"),
    [
        (lambda texts: np.zeros((len(texts) + 1, 3)), r"shape \[5, 3\] for 4 texts"),
        (lambda texts: np.zeros(len(texts)), r"shape \[4\]"),
        (lambda texts: np.full((len(texts), 3), np.nan), "not finite"),
    ],
)
def test_vectors_that_are_none_are_refused(encode, said):
    with pytest.raises(DataError, match=said):
        run(QdrantFake(), encode=encode)


def test_an_engine_that_refuses_or_loses_points_is_named():
    ragged = iter([3, 2])
    with pytest.raises(ServiceError, match="Vector dimension error"):
        run(QdrantFake(), encode=lambda texts: np.ones((len(texts), next(ragged))), loading={"batch": 2})
    lost = {"/collections/corpus/points": reply({"result": {"status": "completed"}, "status": "ok"})}
    with pytest.raises(DataError, match="holds 0 passages after 4 were loaded"):
        run(QdrantFake(trouble=lost))


POINT = {"id": 1, "score": 1.0, "payload": {"id": "a", "title": "", "text": "a"}}


@pytest.mark.parametrize(
    "answer",
    [
        *({}, [], None, {"result": []}, {"result": [{}]}, {"result": [{"points": [3]}]}, {"result": [{"points": 3}]}),
        {"result": [{"points": [POINT] * 3}]},
        {"result": [{"points": [POINT | {"payload": None}]}]},
        {"result": [{"points": [POINT | {"payload": {"text": 3}}]}]},
        {"result": [{"points": [POINT | {"score": "high"}]}]},
    ],
)
def test_an_answer_that_is_none_is_a_failure(answer):
    trouble = {"/collections/corpus/points/query/batch": reply(answer)}
    (outcome,) = run(QdrantFake(trouble=trouble), None, ["salt"], asking={"retries": 1})[1]
    assert isinstance(outcome, RetrieverError)
    assert "asked 2 times" in str(outcome)


def test_distances_put_the_nearest_first_with_scores_that_fall():
    far, near = POINT | {"score": 4.0, "id": 2}, POINT | {"score": 0.5}
    trouble = {"/collections/corpus/points/query/batch": reply({"result": [{"points": [near, far]}], "status": "ok"})}
    (found,) = run(QdrantFake(trouble=trouble), None, ["salt"])[1]
    assert [passage.score for passage in found] == [-0.5, -4.0]


def test_a_failure_is_that_of_its_batch():
    gone = reply({"status": {"error": "Not found: Collection `corpus` doesn't exist!"}}, 404)
    outcomes = run(QdrantFake(trouble={"/collections/corpus/points/query/batch": gone}), None, ["salt", "mills"])[1]
    assert all("Collection `corpus` doesn't exist" in str(outcome) for outcome in outcomes)


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
