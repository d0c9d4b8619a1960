"""A corpus file into an engine elsewhere, by the command."""

import asyncio
import json
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from engines_elsewhere import OpenSearchFake, QdrantFake
from http_server import serving

from forage.errors import ConfigError
from forage.indexing.elsewhere import load_corpus

ROWS = [{"id": str(i), "title": f"title {i}", "text": f"text {i}"} for i in range(5)]


class Lengths:
    """Queries and passages are not encoded alike."""

    def encode(self, queries):
        return [[1.0, float(len(query))] for query in queries]

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


def test_passages_are_encoded_as_passages(corpus):
    fake = QdrantFake()
    with beside(fake) as url:
        options = {"url": url, "collection": "corpus", "encoder": "test_elsewhere:Lengths", "distance": "Cosine"}
        assert load_corpus(corpus, "qdrant", options) == 5
    assert fake.points[4]["vector"] == [2.0, len("title 4 text 4")]
    assert fake.shape["distance"] == "Cosine"


def test_options_are_checked_before_anything_is_read():
    with pytest.raises(ConfigError, match=r"loader\.index is missing"):
        load_corpus("nowhere.jsonl", "opensearch", {"url": "http://localhost:9200"})
    with pytest.raises(ConfigError, match=r"did you mean 'loader\.index'"):
        load_corpus("nowhere.jsonl", "opensearch", {"url": "http://localhost:9200", "indx": "a"})
