"""`forage serve` as processes: workers that die, stop and share; what keeps it from starting."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from forage.errors import ConfigError, ServiceError
from forage.server.serve import check_exposure, listen, read_token

HERE = Path(__file__).parent.parent
SCRIPT = """
import sys
from functools import partial
from pathlib import Path
from forage.boundary import reported
from forage.server.limits import Limits
from forage.server.serve import serve
from forage.server.worker import Work
from opened_shelf import open_shelf
if __name__ == "__main__":
    with reported(debug=False, words=[]):
        opener = partial(open_shelf, Path(sys.argv[1]))
        serve(Work(opener, Limits(grace_s=5), log_requests=True, workers=int(sys.argv[2])), port=0)
"""


class Running:
    def __init__(self, process):
        self.process, self.events, self.url = process, [], ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.events.append(json.loads(line) if line.startswith("{") else {"event": "text", "text": line})

    def named(self, event):
        return [one for one in list(self.events) if one["event"] == event]

    def wait(self, told, what="what was waited for", seconds=20):
        ends = time.monotonic() + seconds
        while not (found := told()):
            assert time.monotonic() < ends, f"{what} did not come: {self.events}"
            time.sleep(0.05)
        return found

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as reply:
            with reply:
                return reply.code, reply.read().decode()
        except OSError as error:
            return 0, str(error)


@contextmanager
def running(shelf, workers, tmp_path):
    script = tmp_path / "serve_shelf.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, script, shelf, str(workers)], stderr=subprocess.PIPE, text=True, env=environment
    )
    served = Running(process)
    try:
        served.url = served.wait(lambda: served.named("listening"), "the address")[0]["url"]
        yield served
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(20)
        served._reader.join(5)
        process.stderr.close()


@pytest.fixture
def shelf(tmp_path):
    file = tmp_path / "shelf.json"
    file.write_text(json.dumps({"x": "found"}))
    return file


def ready(served):
    served.wait(lambda: served.ask("/health")[0] == 200, "health")


def test_workers_that_die_come_again_and_all_end_politely(shelf, tmp_path):
    with running(shelf, 2, tmp_path) as served:
        ready(served)
        assert json.loads(served.ask("/v1/search", {"queries": ["x"]})[1])["results"][0][0]["text"] == "found"
        first = served.named("worker_started")[0]["child"]
        os.kill(first, signal.SIGKILL)
        served.wait(lambda: len(served.named("ready")) == 3, "the third worker")
        assert served.named("worker_died")[0]["exit"] == -signal.SIGKILL
        ready(served)
        assert "forage_worker_starts_total 3\n" in served.ask("/metrics")[1]
        told = [one for one in served.named("request") if one["path"] == "/v1/search"]
        assert [one["status"] for one in told] == [200]
    assert served.process.returncode == 0
    assert served.named("stopped")
    for one in served.named("worker_started"):
        with pytest.raises(ProcessLookupError):
            os.kill(one["child"], 0)


def test_an_index_that_is_gone_when_a_worker_comes_again_is_named_until_it_is_back(shelf, tmp_path):
    with running(shelf, 1, tmp_path) as served:
        ready(served)
        text = shelf.read_text()
        shelf.unlink()
        assert served.ask("/v1/search", {"queries": ["x"]})[0] == 200
        os.kill(served.named("worker_started")[0]["child"], signal.SIGKILL)
        served.wait(lambda: served.named("index_failed"), "the failure")
        served.wait(lambda: served.ask("/v1/search", {"queries": ["x"]})[0] == 503, "the refusal")
        assert "shelf.json" in served.ask("/v1/search", {"queries": ["x"]})[1]
        shelf.write_text(text)
        ready(served)


def test_without_an_index_it_does_not_start(tmp_path):
    with running(tmp_path / "nothing.json", 2, tmp_path) as served:
        assert served.process.wait(20) == 1
    assert any("nothing.json" in one["text"] for one in served.named("text"))


def test_workers_end_with_their_parent(shelf, tmp_path):
    with running(shelf, 1, tmp_path) as served:
        ready(served)
        served.process.kill()
        child = served.named("worker_started")[0]["child"]
        served.wait(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child), "the worker's end")


def _is_zombie(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_others_are_served_with_a_token_or_on_purpose():
    for host in ("0.0.0.0", "192.0.2.1", "::", "example.org"):
        with pytest.raises(ConfigError, match="--insecure"):
            check_exposure(host, "", insecure=False)
        check_exposure(host, "token", insecure=False)
        check_exposure(host, "", insecure=True)
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        check_exposure(host, "", insecure=False)


def test_an_address_that_is_taken_is_named():
    with listen("127.0.0.1", 0) as one, pytest.raises(ServiceError, match=r"127\.0\.0\.1 port .*in use"):
        listen("127.0.0.1", one.getsockname()[1])
    with pytest.raises(ServiceError, match="port 70000"):
        listen("127.0.0.1", 70_000)


def test_the_token_comes_from_one_place(tmp_path):
    file = tmp_path / "token"
    file.write_text("abc\n")
    assert read_token("", file) == "abc"
    assert read_token("TOKEN", None, {"TOKEN": "xyz"}) == "xyz"
    assert read_token("", None) == ""
    for variable, path, held in (("TOKEN", None, ""), ("TOKEN", file, "x"), ("TOKEN", None, "a\nb"), ("T", None, "ü")):
        with pytest.raises(ConfigError):
            read_token(variable, path, {"TOKEN": held, "T": held})
