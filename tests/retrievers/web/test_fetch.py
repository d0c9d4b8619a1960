"""Pages from hosts that mean no good."""

import asyncio
import gzip

import pytest
from http_server import reply, serving

from forage.retrievers.web.fetch import Fetcher, Limits, NoPage

QUICK = Limits(timeout_s=2.0, max_bytes=20_000, redirects=3, robots=False)
METADATA = "http://169.254.169.254/latest/meta-data/"


def fetch(script, path="/page", limits=QUICK, hosts=None, allowed=None):
    """A page of a host that is allowed although it is this machine, what the server was asked, and the error."""

    async def main():
        async with serving(script) as server:
            names = {"pages.test": ["127.0.0.1"]} | (hosts or {})

            async def resolver(host, port):
                return names.get(host, [host])

            fetcher = Fetcher(limits, [f"pages.test:{server.port}"] if allowed is None else allowed, resolver)
            url = f"http://pages.test:{server.port}{path}" if path.startswith("/") else path
            try:
                return await fetcher.fetch(url), server.asked, None
            except NoPage as error:
                return None, server.asked, error

    return asyncio.run(main())


def refused(*given, **how):
    _, asked, error = fetch(*given, **how)
    assert error is not None
    return str(error), asked, error.for_good


def test_a_page_comes_with_its_kind_and_is_asked_for_by_the_name_of_its_host():
    page, asked, _ = fetch(lambda asked: reply("<p>Tavero</p>"), "/a?b=c#d")
    assert (page.body, page.kind, page.charset) == (b"<p>Tavero</p>", "text/html", "utf-8")
    assert asked[0].target == "/a?b=c"
    assert asked[0].headers["host"].startswith("pages.test:")
    assert asked[0].headers["user-agent"].startswith("forage-rl/")
    assert "cookie" not in asked[0].headers


@pytest.mark.parametrize("location", ["/b", "b", "//pages.test:{port}/b"])
def test_a_redirect_is_followed(location):
    def script(asked):
        port = asked.headers["host"].partition(":")[2]
        return reply("there") if asked.path == "/b" else reply("", 302, Location=location.format(port=port))

    page, asked, _ = fetch(script)
    assert page.body == b"there"
    assert [one.path for one in asked] == ["/page", "/b"]


@pytest.mark.parametrize(
    "location",
    [
        *(
            "http://127.0.0.1:{port}/secret",
            "http://localhost/",
            METADATA,
            "http://[::1]:{port}/",
            "//127.1:{port}/secret",
        ),
        *(
            "http://2130706433:{port}/",
            "http://0177.0.0.1:{port}/",
            "http://[::ffff:127.0.0.1]:{port}/",
            "file:///etc/passwd",
        ),
        *("ftp://pages.test/", "http://inside.test:{port}/", "http://me@pages.test:{port}/"),
    ],
)
def test_a_redirect_into_this_network_is_refused(location):
    def script(asked):
        port = asked.headers["host"].partition(":")[2]
        return reply("", 301, Location=location.format(port=port))

    hosts = {"inside.test": ["10.0.0.7"], "localhost": ["127.0.0.1"]}
    cause, asked, for_good = refused(script, hosts=hosts)
    assert cause.startswith("refused: ")
    assert for_good
    assert len(asked) == 1


@pytest.mark.parametrize("path", [METADATA, "http://127.0.0.1/", "http://intranet.test/"])
def test_what_is_not_public_is_not_even_asked(path):
    cause, asked, _ = refused(lambda asked: reply("secret"), path, hosts={"intranet.test": ["192.168.1.1"]})
    assert "not public" in cause
    assert not asked


def test_the_name_is_looked_up_once_a_request_and_that_address_is_connected_to():
    looked = []

    async def main():
        async with serving(lambda asked: reply("here")) as server:

            async def resolver(host, port):
                looked.append(host)
                return ["127.0.0.1"]

            fetcher = Fetcher(QUICK, [f"no-such-host.invalid:{server.port}"], resolver)
            return await fetcher.fetch(f"http://no-such-host.invalid:{server.port}/")

    assert asyncio.run(main()).body == b"here"  # no other lookup could have found it
    assert looked == ["no-such-host.invalid"]


def test_redirects_end():
    cause, asked, for_good = refused(lambda asked: reply("", 307, Location="/again"))
    assert cause == "more than 3 redirects"
    assert for_good
    assert len(asked) == 4


def test_a_page_that_says_how_large_it_is_is_not_read():
    assert refused(lambda asked: reply("x" * 20_001))[0] == "more than 20,000 bytes"


async def endless(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
    while True:
        writer.write(b"<p>more</p>" * 100)
        await writer.drain()


async def dripping(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def headers_for_ever(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


async def garbage(writer):
    writer.write(b"\x00\x01 what is this\r\n\r\n")
    await writer.drain()


async def half(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000\r\n\r\nhalf")
    await writer.drain()


async def lying(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: many\r\n\r\nhalf")
    await writer.drain()


def raw(answer):
    return lambda asked: later(answer)


async def later(answer):
    return answer


def test_an_endless_page_is_given_up():
    assert refused(raw(endless))[0] == "more than 20,000 bytes"


def test_a_page_that_never_ends_slowly_is_given_up_in_time():
    cause, _, for_good = refused(raw(dripping), limits=Limits(timeout_s=0.3, robots=False))
    assert cause == "not here within 0.3 s"
    assert not for_good


@pytest.mark.parametrize("answer", [headers_for_ever, garbage, half, lying])
def test_an_answer_that_is_no_http_is_no_page(answer):
    assert "Error" in refused(raw(answer))[0]


def test_a_packed_page_is_unpacked_no_further_than_allowed():
    small, bomb = gzip.compress(b"<p>hello</p>"), gzip.compress(b"\0" * 50_000_000)
    assert (
        fetch(lambda asked: reply(small, Content_Type="text/html", Content_Encoding="gzip"))[0].body == b"<p>hello</p>"
    )
    large = Limits(timeout_s=5, max_bytes=200_000, robots=False)
    bombed = refused(lambda asked: reply(bomb, Content_Encoding="gzip"), limits=large)
    assert bombed[0] == "more than 200,000 bytes"


@pytest.mark.parametrize(("packed", "cause"), [("gzip", "can't be unpacked"), ("br", "packed as 'br'")])
def test_what_can_not_be_unpacked_is_no_page(packed, cause):
    assert cause in refused(lambda asked: reply("plain", Content_Encoding=packed))[0]


@pytest.mark.parametrize("kind", ["application/pdf", "image/png", "", "application/octet-stream", "text/html2"])
def test_other_kinds_of_content_are_no_page(kind):
    assert refused(lambda asked: reply("x", Content_Type=kind))[0].startswith("content of type")


@pytest.mark.parametrize(("status", "for_good"), [(404, True), (403, True), (429, False), (500, False), (503, False)])
def test_a_status_is_named_and_what_may_pass_is_not_for_good(status, for_good):
    assert refused(lambda asked: reply("gone", status))[::2] == (f"status {status}", for_good)


def test_nobody_there():
    assert "ConnectError" in refused(None, "http://pages.test:1/", allowed=["pages.test"])[0]


def robots(text, status=200):
    return lambda asked: (
        reply(text, status, Content_Type="text/plain") if asked.path == "/robots.txt" else reply("page")
    )


POLITE = Limits(timeout_s=2.0)


def test_robots_are_respected_and_asked_once():
    cause, asked, _ = refused(robots("User-agent: forage-rl\nDisallow: /page"), limits=POLITE)
    assert cause == "robots.txt forbids it"
    assert [one.path for one in asked] == ["/robots.txt"]
    assert fetch(robots("User-agent: *\nDisallow: /private"), limits=POLITE)[0].body == b"page"


def test_a_host_without_robots_may_be_read_and_one_that_fails_may_not():
    assert fetch(robots("", 404), limits=POLITE)[0].body == b"page"
    assert refused(robots("", 503), limits=POLITE)[0] == "robots.txt: status 503"


def test_robots_are_not_asked_where_that_is_off():
    _, asked, _ = fetch(robots("User-agent: *\nDisallow: /"))
    assert [one.path for one in asked] == ["/page"]


def test_robots_that_lead_into_this_network_are_refused():
    script = lambda asked: reply("", 302, Location=METADATA)  # noqa: E731
    assert "not public" in refused(script, limits=POLITE)[0]
