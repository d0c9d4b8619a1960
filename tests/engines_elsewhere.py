"""OpenSearch and Qdrant as far as Forage asks them, answering as they document, with a switch for each trouble."""

import json
import re

from http_server import reply


class OpenSearchFake:
    """One index. Scores are counts of shared words."""

    def __init__(self, rejected=0, trouble=None):
        self.schema, self.documents, self.rejected, self.trouble, self.bulks = None, {}, rejected, trouble or {}, 0

    def __call__(self, asked):
        if trouble := self.trouble.get(asked.path):
            return trouble() if callable(trouble) else trouble
        if asked.path == "/":
            return reply({"tagline": "The OpenSearch Project: https://opensearch.org/"})
        verb = asked.path.rpartition("/")[2]
        return getattr(self, verb if verb.startswith("_") else "create")(asked)

    def create(self, asked):
        if self.schema is not None:
            error = {"type": "resource_already_exists_exception", "reason": "index [corpus] already exists"}
            return reply({"error": error, "status": 400}, 400)
        self.schema = asked.json
        return reply({"acknowledged": True, "shards_acknowledged": True, "index": "corpus"})

    def _bulk(self, asked):
        assert asked.headers["content-type"] == "application/x-ndjson"
        assert asked.body.endswith(b"\n")
        self.bulks += 1
        items = []
        for head, document in zip(asked.lines[::2], asked.lines[1::2], strict=True):
            identity = head["index"]["_id"]
            items.append({"index": {"_index": "corpus", "_id": identity} | self.written(identity, document)})
        return reply({"took": 3, "errors": any("error" in item["index"] for item in items), "items": items})

    def written(self, identity, document):
        if self.rejected:
            self.rejected -= 1
            return {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "queue is full"}}
        if "unparsable" in document["text"]:
            return {"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "failed to parse"}}
        created = identity not in self.documents
        self.documents[identity] = document
        return {"status": 201 if created else 200, "result": "created" if created else "updated"}

    def _settings(self, asked):
        self.schema["settings"]["index"] |= asked.json["index"]
        return reply({"acknowledged": True})

    def _refresh(self, asked):
        return reply({"_shards": {"total": 2, "successful": 1, "failed": 0}})

    def _count(self, asked):
        before = asked.json["query"]["range"]["row"]["lt"] if asked.json else float("inf")
        count = sum(document["row"] < before for document in self.documents.values())
        return reply({"count": count, "_shards": {"total": 1, "successful": 1, "failed": 0}})

    def _mapping(self, asked):
        assert asked.method == "GET"
        return reply({"corpus": {"mappings": self.schema["mappings"]}})

    def _msearch(self, asked):
        assert asked.headers["content-type"] == "application/x-ndjson"
        for head, body in zip(asked.lines[::2], asked.lines[1::2], strict=True):
            assert head == ({} if "knn" in body["query"] else {"search_type": "dfs_query_then_fetch"})
        return reply({"took": 5, "responses": [self.search(body) for body in asked.lines[1::2]]})

    def search(self, body):
        query = json.dumps(body["query"])
        if "toomany" in query:
            error = {"type": "too_many_clauses", "reason": "maxClauseCount is set to 1024"}
            return {"error": error, "status": 400}
        words, scores = set(re.findall(r"\w+", query.lower())), {}
        for identity, document in self.documents.items():
            if score := self.score(body["query"], document):
                hit = {"_id": identity, "_score": score, "_source": {name: document[name] for name in body["_source"]}}
                scores[identity] = (-score, document["row"], hit)
        scored = list(scores.values())
        hits = [hit for *_, hit in sorted(scored, key=lambda one: one[:2])[: body["size"]]]
        return {
            "took": 1,
            "timed_out": "toolate" in words,
            "_shards": {"total": 2, "successful": 1, "skipped": 0, "failed": int("halfgone" in words)},
            "hits": {"max_score": None, "hits": hits},
            "status": 200,
        }

    def score(self, query, document):
        """How often the words are said; or the inner product, as a score above 0."""
        if "match" in query:
            words = set(re.findall(r"\w+", next(iter(query["match"].values()))["query"].lower()))
            said = re.findall(r"\w+", f"{document['title']} {document['text']}".lower())
            return float(sum(word in words for word in said))
        ((field, near),) = query["knn"].items()
        product = sum(a * b for a, b in zip(near["vector"], document[field], strict=True))
        return 1 + product if product >= 0 else 1 / (1 - product)


class QdrantFake:
    """One collection, compared by dot product."""

    def __init__(self, trouble=None):
        self.shape, self.points, self.trouble, self.metadata = None, {}, trouble or {}, None

    def __call__(self, asked):
        if trouble := self.trouble.get(asked.path):
            return trouble
        if asked.path == "/":
            return reply({"title": "qdrant - vector search engine"})
        path = asked.path.removeprefix("/collections/corpus")
        if path == "/exists":
            return self.said({"exists": self.shape is not None})
        if path == "" and asked.method == "GET":
            return self.said(
                {"status": "green", "config": {"params": {"vectors": self.shape}, "metadata": self.metadata}}
            )
        if path == "":
            self.shape, self.metadata = asked.json["vectors"], asked.json["metadata"]
            return self.said(True)
        if path == "/points/count":
            return self.said({"count": len(self.points)})
        if path == "/points":
            assert asked.params == {"wait": "true"}
            for point in asked.json["points"]:
                if len(point["vector"]) != self.shape["size"]:
                    return reply({"status": {"error": "Wrong input: Vector dimension error"}, "time": 0.0}, 400)
                self.points[point["id"]] = point
            return self.said({"operation_id": 0, "status": "completed"})
        return self.said([{"points": self.nearest(search)} for search in asked.json["searches"]])

    def said(self, result):
        return reply({"result": result, "status": "ok", "time": 0.001})

    def nearest(self, search):
        scored = [
            (sum(a * b for a, b in zip(search["query"], p["vector"], strict=True)), p) for p in self.points.values()
        ]
        best = sorted(scored, key=lambda one: -one[0])[: search["limit"]]
        return [{"id": p["id"], "version": 1, "score": score, "payload": p["payload"]} for score, p in best]
