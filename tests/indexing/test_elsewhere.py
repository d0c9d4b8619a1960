"""A corpus file into an engine elsewhere, by the command."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from engines_elsewhere import OpenSearchFake, QdrantFake
from http_server import reply, serving

from forage.errors import CheckpointError, ConfigError, DataError, IndexFolderError, ServiceError
from forage.indexing.build import build_index
from forage.indexing.elsewhere import load_corpus

ROWS = [{"id": str(i), "title": f"title {i}", "text": f"text {i}"} for i in range(5)]


class Lengths:
    """Queries and passages are not encoded alike."""

    dimensions = 2

    def encode_queries(self, texts):
        return [[1.0, float(len(text))] for text in texts]

    def encode_passages(self, texts):
        return [[2.0, float(len(text))] for text in texts]


@contextmanager
def beside(fake):
    """A server in a thread of its own; its URL."""
    started, stop, found = threading.Event(), None, []

    async def main():
        nonlocal stop
        stop = asyncio.Event()
        found.append(asyncio.get_running_loop())
        async with serving(fake) as server:
            found.append(server.url)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    started.wait(5)
    try:
        yield found[1]
    finally:
        found[0].call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture
def corpus(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def test_the_command_loads_a_file(corpus):
    fake = OpenSearchFake()
    with beside(fake) as url:
        words = ["load", corpus, "opensearch", f"url={url}", "index=corpus", "k1=1.2", "shards=2", "batch=2", "--json"]
        command = [sys.executable, "-m", "forage", *map(str, words)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        again = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == {"engine": "opensearch", "passages": 5}, done.stderr
    assert fake.schema["settings"]["index"]["similarity"]["default"]["k1"] == 1.2
    assert fake.documents["3"] == {"title": "title 3", "text": "text 3", "row": 3}
    assert (again.returncode, "has an index 'corpus' already" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("engine", "options"),
    [("opensearch", {"index": "corpus"}), ("qdrant", {"collection": "corpus", "encoder": "test_elsewhere:Lengths"})],
)
def test_an_address_where_nobody_answers_is_refused_at_once(corpus, engine, options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url, began = f"http://127.0.0.1:{free.getsockname()[1]}", time.monotonic()
        with pytest.raises(ServiceError, match=f"nobody answers at {url}.*ConnectError"):
            load_corpus(corpus, engine, {"url": url} | options)
    assert time.monotonic() - began < 5


def test_what_is_waited_for_is_said(corpus):
    replies = [reply("overloaded", 503), reply({"count": 5})]
    fake, said = OpenSearchFake(rejected=2, trouble={"/corpus/_count": lambda: replies.pop(0)}), []
    with beside(fake) as url:
        assert load_corpus(corpus, "opensearch", {"url": url, "index": "corpus"}, say=said.append) == 5
    rejected, down = said
    assert rejected == f"{url}/corpus rejected 2 passages, it is too busy (attempt 1 of 9): again in 0.5 s"
    assert down.startswith(f"{url}/corpus/_count: status 503: overloaded (attempt 1 of 9): again in 0.")


def test_passages_are_encoded_as_passages(corpus):
    fake = QdrantFake()
    with beside(fake) as url:
        options = {"url": url, "collection": "corpus", "encoder": "test_elsewhere:Lengths", "distance": "Cosine"}
        assert load_corpus(corpus, "qdrant", options) == 5
    assert fake.points[4]["vector"] == [2.0, len("title 4 text 4")]
    assert fake.shape["distance"] == "Cosine"


def test_vectors_of_an_index_folder_are_taken_for_its_very_passages(corpus, tmp_path):
    pytest.importorskip("faiss")
    folder = tmp_path / "index"
    build_index(corpus, "dense", folder, options={"encoder": "test_elsewhere:Lengths"})
    fake = OpenSearchFake()
    with beside(fake) as url:
        options = {"url": url, "index": "corpus", "vectors": folder, "graph_engine": "lucene"}
        assert load_corpus(folder, "opensearch", options) == 5
    assert fake.documents["4"] == {"title": "title 4", "text": "text 4", "row": 4, "vector": [2.0, 14.0]}
    assert fake.schema["mappings"]["properties"]["vector"]["method"]["engine"] == "lucene"
    assert fake.schema["mappings"]["_meta"]["forage"]["encoder"]["kind"] == "test_elsewhere:Lengths"
    rows = [*ROWS[:3], {"id": "3", "title": "title 3", "text": "other"}, ROWS[4]]
    for changed, said in (
        (rows, "no vector for the passage '3'"),
        ([*ROWS, {"id": "5", "text": "more"}], "has 5 vectors"),
    ):
        corpus.write_text("".join(json.dumps(row) + "\n" for row in changed))
        with beside(QdrantFake()) as url, pytest.raises(DataError, match=said):
            load_corpus(corpus, "qdrant", {"url": url, "collection": "corpus", "vectors": folder})


def test_where_vectors_come_from_must_be_one_place(corpus, tmp_path):
    where = {"url": "http://localhost:9200", "index": "corpus"}
    for options, said in [
        ({"vectors": tmp_path, "encoder": "test_elsewhere:Lengths"}, "leave encoder and title out"),
        ({"encoder_options": {"path": "e5"}}, "encoder_options are given, and no encoder"),
        ({"encoder.path": "nowhere/at/all"}, "nowhere/at/all"),
        ({"encoder_path": "nowhere/at/all"}, "nowhere/at/all"),
        ({"encoder.path": "nowhere/at/all", "encoder_options": {"max_tokens": 9}}, "nowhere/at/all"),
        ({"encoder.max_tokens": 9, "encoder_options": {"path": "nowhere/at/all"}}, "nowhere/at/all"),
        ({"encoder.path": "x", "encoder_options": 3}, r"loader\.encoder_options = 3"),
        ({"encoder.path": "x", "encoder_options": {"path": "y"}}, r"both encoder_path and encoder_options\.path"),
        ({"graph_m": 32}, "a graph and title= are for vectors"),
    ]:
        with pytest.raises((ConfigError, CheckpointError), match=said):
            load_corpus(corpus, "opensearch", where | options)
    with pytest.raises(ConfigError, match="name an encoder"):
        load_corpus(corpus, "qdrant", {"url": "http://localhost:6333", "collection": "corpus"})
    build_index(corpus, "bm25", tmp_path / "words")
    with pytest.raises(IndexFolderError, match="holds no vectors"):
        load_corpus(corpus, "opensearch", where | {"vectors": tmp_path / "words"})


def test_options_are_checked_before_anything_is_read():
    with pytest.raises(ConfigError, match=r"loader\.index is missing"):
        load_corpus("nowhere.jsonl", "opensearch", {"url": "http://localhost:9200"})
    with pytest.raises(ConfigError, match=r"did you mean 'loader\.index'"):
        load_corpus("nowhere.jsonl", "opensearch", {"url": "http://localhost:9200", "indx": "a"})
