"""Chat completions from a server on loopback, in good times and bad."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate

import pytest
from chat_server import said, serving

from forage.clients.chat import ChatClient
from forage.concurrency import together
from forage.errors import ConfigError, ServiceError

BUSY = (429, {}, "slow down")


class Naps:
    """Waits that are only counted."""

    def __init__(self):
        self.taken = []

    async def __call__(self, seconds):
        self.taken.append(seconds)


def client(url, naps=None, **options):
    return ChatClient(url, "judge-1", sleep=naps or Naps(), **options)


def ask(asked, prompt="Right?"):
    return asyncio.run(asked.ask(prompt))


def test_a_message_goes_out_and_its_reply_comes_back():
    with serving([said("yes")]) as endpoint:
        key = {"JUDGE_KEY": "sk-1234"}
        chat = client(f"{endpoint.url}/", api_key_env="JUDGE_KEY", environment=key, request={"temperature": 0})
        assert ask(chat, "Größe? \ud800") == "yes"
    path, headers, body = endpoint.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer sk-1234"
    messages = [{"role": "user", "content": "Größe? ?"}]
    assert body == {"temperature": 0, "model": "judge-1", "messages": messages}


def test_without_a_key_none_is_sent():
    with serving([said("no")]) as endpoint:
        assert ask(client(endpoint.url)) == "no"
    assert "Authorization" not in endpoint.asked[0][1]


@pytest.mark.parametrize("failure", [BUSY, (500, {}, ""), (503, {}, "loading"), (200, {}, "{"), (200, {}, "[]")])
def test_what_may_pass_is_tried_again_with_growing_waits(failure):
    naps = Naps()
    with serving([failure, failure, failure, said("yes")]) as endpoint:
        assert ask(client(endpoint.url, naps)) == "yes"
    for nap, longest in zip(naps.taken, [0.5, 1.0, 2.0], strict=True):
        assert longest / 2 <= nap <= longest


def test_a_wait_that_the_server_names_is_kept():
    naps, later = Naps(), formatdate(time.time() + 30, usegmt=True)
    replies = [(429, {"Retry-After": "7"}, ""), (503, {"Retry-After": later}, ""), (429, {"Retry-After": "soon"}, "")]
    with serving([*replies, said("yes")]) as endpoint:
        assert ask(client(endpoint.url, naps)) == "yes"
    assert naps.taken[0] == 7
    assert 25 < naps.taken[1] <= 30
    assert naps.taken[2] <= 2


def test_nobody_waits_for_a_day():
    with serving([(429, {"Retry-After": "86400"}, "quota")]) as endpoint:
        with pytest.raises(ServiceError, match=r"asked once .* status 429: quota \(to be tried again after 86400 s\)"):
            ask(client(endpoint.url))
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    ("reply", "times", "cause"),
    [
        ((500, {}, "out of memory"), 3, "asked 3 times and gave no reply: status 500: out of memory"),
        ((200, {}, "<html>\n gateway"), 3, "no chat completion: <html> gateway"),
        ((200, {}, '{"choices": []}'), 3, "no chat completion"),
        ((200, {}, '{"choices": [{"message": {"content": null}}]}'), 3, "no chat completion"),
        ((401, {}, "who are you"), 1, "asked once and gave no reply: status 401: who are you"),
        ((404, {}, ""), 1, "status 404: an empty body"),
    ],
)
def test_a_failure_for_good_names_url_and_cause(reply, times, cause):
    with serving([reply]) as endpoint, pytest.raises(ServiceError) as caught:
        ask(client(endpoint.url, retries=2))
    assert len(endpoint.asked) == times
    assert endpoint.url in str(caught.value)
    assert cause in str(caught.value)


def test_a_server_that_hangs_is_given_up():
    released = threading.Event()

    def hang(number, body):
        released.wait(5)
        return said("yes")

    with serving(hang) as endpoint:
        with pytest.raises(ServiceError, match=r"asked 2 times .* no reply within 0.1 s"):
            ask(client(endpoint.url, timeout_s=0.1, retries=1))
        released.set()


def test_a_refused_connection_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ServiceError, match=r"asked 3 times .* ConnectError"):
        ask(client(url, retries=2))


def test_a_key_that_the_server_repeats_is_not_passed_on():
    cut = "x" * 188 + " wrong key sk-1234"  # the message ends within the key
    with serving([(401, {}, cut)]) as endpoint, pytest.raises(ServiceError) as caught:
        ask(client(endpoint.url, api_key_env="JUDGE_KEY", environment={"JUDGE_KEY": "sk-1234"}))
    assert "wrong key" in str(caught.value)
    assert "sk-" not in str(caught.value)


def test_no_more_is_asked_at_a_time_than_allowed():
    inside, most, lock = 0, 0, threading.Lock()

    def counted(number, body):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.01)
        with lock:
            inside -= 1
        return said(body["messages"][0]["content"])

    with serving(counted) as endpoint:
        chat = client(endpoint.url, concurrency=3)
        for _ in range(2):  # another event loop each time
            replies = asyncio.run(ask_all(chat, 12))
            assert replies == [str(i) for i in range(12)]
    assert 1 < most <= 3


async def ask_all(chat, count):
    return await together(chat.ask(str(i)) for i in range(count))


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "", "http://"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ConfigError, match="expected one such as"):
        client(url)


@pytest.mark.parametrize(
    "url", ["https://me:sk-1234@host/v1", "https://sk-1234@host/v1", "https://host/v1?key=sk-1234"]
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match="that of host must hold no name") as caught:
        client(url)
    assert "sk-1234" not in str(caught.value)


@pytest.mark.parametrize("environment", [{}, {"JUDGE_KEY": " "}])
def test_a_missing_key_is_said_before_anything_is_asked(environment):
    with pytest.raises(ConfigError, match="api_key_env = 'JUDGE_KEY'"):
        client("http://host/v1", api_key_env="JUDGE_KEY", environment=environment)


def test_without_httpx2_the_install_line_is_said():
    script = """
import sys
sys.modules["httpx2"] = None
from forage.clients.chat import ChatClient
from forage.errors import MissingExtra
try:
    ChatClient("http://host/v1", "m")
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'forage-rl[judge]'" in done.stdout
