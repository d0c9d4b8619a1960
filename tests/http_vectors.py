"""Search-R1's HTTP contract, asked of Forage's service without a network. Where it differs on purpose, as rules:

- Documents always have id, contents, title and text: there a dense index gives id and contents, BM25 all but the id.
- Places without a hit are left out: there they become the last document of the corpus, with FAISS's -3.4e38.
- Without scores the documents stand where they do with them: there the request fails, or loses documents.
- A place in a list is named by a number.
"""

import asyncio
import io
import json

from forage.server.app import Service
from forage.server.contract import NO_HIT
from forage.server.keeper import Opened
from forage.server.limits import Limits
from forage.server.log import Log
from forage.types import Passage


class FixedHits:
    """Finds what a vector says; a place without a hit is left out, as an index of Forage's must."""

    def __init__(self, inputs):
        rows = enumerate(inputs["corpus"])
        self.corpus = [Passage(str(row), *self._parts(contents)) for row, contents in rows]
        self.hits = {one["query"]: one["hits"] for one in inputs["hits"]}

    def _parts(self, contents):
        title, _, text = contents.partition("\n")
        return title.strip('"'), text

    def lookup(self, queries, k):
        return [
            [Passage(self.corpus[row].id, self.corpus[row].title, self.corpus[row].text, score)
             for row, score in self.hits.get(query, [])[:k]]
            for query in queries
        ]  # fmt: skip


def http_contract(case):
    inputs, expected = case["inputs"], case["expected"]
    status, answer = asyncio.run(_asked(inputs))
    if not inputs["request"].get("return_scores", False) and isinstance(inputs["request"].get("queries"), list):
        _check_without_scores(inputs, status, answer)
        return
    assert status == expected["status"], answer
    if status == 200:
        assert len(answer["result"]) == len(expected["response"]["result"])
        for ours, theirs in zip(answer["result"], expected["response"]["result"], strict=True):
            _check_hits(ours, [hit for hit in theirs if hit["score"] > NO_HIT])
    else:
        locations = [[str(step) for step in one["loc"]] for one in answer["detail"]]
        assert locations == expected["error_locations"]


def _check_hits(ours, theirs):
    assert len(ours) == len(theirs)
    for hit, other in zip(ours, theirs, strict=True):
        assert hit["score"] == other["score"]
        assert other["document"].items() <= hit["document"].items()


def _check_without_scores(inputs, status, answer):
    assert status == 200
    scored = asyncio.run(_asked({**inputs, "request": {**inputs["request"], "return_scores": True}}))[1]
    assert answer["result"] == [[{"document": hit["document"]} for hit in hits] for hits in scored["result"]]


async def _asked(inputs):
    """(status, body) of the request, through ASGI alone."""
    index = FixedHits(inputs)
    service = Service(lambda: Opened(index), limits=Limits(k=inputs["server_topk"]), log=Log(io.StringIO()))
    told = asyncio.Queue()
    life = asyncio.create_task(service({"type": "lifespan"}, told.get, _ignore))
    await told.put({"type": "lifespan.startup"})
    while (await _exchange(service, "GET", "/health", b""))[0] != 200:
        await asyncio.sleep(0.001)
    body = json.dumps(inputs["request"]).encode()
    answer = await _exchange(service, "POST", "/retrieve", body)
    await told.put({"type": "lifespan.shutdown"})
    await life
    return answer


async def _ignore(message):
    pass


async def _exchange(service, method, path, body):
    sent = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    await service({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])
