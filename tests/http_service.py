"""A service that is up while a block lasts, in a thread, on a free port of loopback."""

import io
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import uvicorn

from forage.server.app import Service
from forage.server.connection import patient
from forage.server.keeper import Opened
from forage.server.log import Log
from forage.types import Passage


class Shelf:
    """An index over a dictionary. A query that is not there finds nothing; an exception there is raised."""

    def __init__(self, found, *, delay_s=0.0, batch_size=8):
        self.found, self.delay_s, self.batch_size, self.calls = found, delay_s, batch_size, []

    def lookup(self, queries, k):
        self.calls.append(list(queries))
        time.sleep(self.delay_s)
        outcomes = [self.found.get(query, []) for query in queries]
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return [outcome[:k] for outcome in outcomes]


def passage(name, score=1.0):
    return Passage(name.lower(), name, f"{name} is a place.", score)


PLACES = Shelf({"capital of France": [passage("Paris", 0.875), passage("Lyon", 0.75), passage("Nice", 0.5)]})


class Served:
    def __init__(self, url, service, out):
        self.url, self.service, self._out = url, service, out

    @property
    def events(self):
        return [json.loads(line) for line in self._out.getvalue().splitlines()]

    def ask(self, path, body=None, headers=None, method=None):
        """(status, headers, parsed body) of a GET, or of a POST of bytes, or of anything else as JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, reply.headers, _parsed(reply)
        except urllib.error.HTTPError as reply:
            with reply:
                return reply.code, reply.headers, _parsed(reply)


def _parsed(reply):
    body = reply.read()
    return json.loads(body) if reply.headers["content-type"] == "application/json" else body.decode()


@contextmanager
def serving(index, *, wait=True, **options):
    """`index` is one, or a function that gives an `Opened`."""
    out = io.StringIO()
    opener = index if callable(index) else lambda: Opened(index, {"kind": "shelf"})
    service = Service(opener, log=Log(out), **options)
    listening = socket.create_server(("127.0.0.1", 0))
    settings = {"ws": "none", "lifespan": "on", "log_config": None, "access_log": False, "server_header": False}
    protocol = patient(service.limits.read_s)
    config = uvicorn.Config(service, http=protocol, timeout_graceful_shutdown=5, **settings)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    served = Served(f"http://127.0.0.1:{listening.getsockname()[1]}", service, out)
    try:
        while wait and served.ask("/health")[0] != 200:
            time.sleep(0.01)
        yield served
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
        listening.close()
