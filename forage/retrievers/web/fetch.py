"""Pages, fetched with limits: on who is asked, and on time, size, redirects and kinds of content."""

from __future__ import annotations

import asyncio
import urllib.robotparser
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from forage.environment import installed
from forage.errors import MissingExtra
from forage.retrievers.web.addresses import Refused, Resolve, Target, check, resolve

AGENT = "forage-rl"
USER_AGENT = f"{AGENT}/{installed(AGENT) or 0}"
KINDS = ("text/html", "application/xhtml+xml", "text/plain")
REDIRECTS = frozenset({301, 302, 303, 307, 308})
ROBOTS_BYTES = 500 * 2**10  # of robots.txt that must be read at least (RFC 9309, 2.5)


class NoPage(Exception):
    """A page that could not be had. `for_good` where another try would end the same."""

    def __init__(self, cause: str, *, for_good: bool = True) -> None:
        super().__init__(cause)
        self.for_good = for_good


@dataclass(frozen=True, slots=True)
class Page:
    """What a server sent: media type, charset (empty: not said), body."""

    url: str
    kind: str
    charset: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one page: seconds in all, bytes of its body, redirects followed; and whether robots.txt is asked first."""

    timeout_s: float = 20.0
    max_bytes: int = 2_000_000
    redirects: int = 5
    robots: bool = True


class Fetcher:
    """Fetches pages from public hosts. Each request goes to an address that was looked at, redirects too.

    No proxy of the environment is used, no cookie kept, and no connection used twice.

    Args:
        allowed: hosts, or `host:port`, whose addresses may be private.
        resolver: host and port to addresses.

    Raises:
        MissingExtra: httpx2 is not installed.
    """

    def __init__(self, limits: Limits, allowed: Collection[str] = (), resolver: Resolve = resolve) -> None:
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtra("httpx2", "web") from error
        self._http = httpx2
        self._limits, self._allowed, self._resolver = limits, frozenset(allowed), resolver
        self._certificates = httpx2.create_ssl_context()
        self._rules: dict[str, urllib.robotparser.RobotFileParser] = {}

    async def fetch(self, url: str) -> Page:
        """The page at a URL, or at where it redirects.

        Raises:
            NoPage: refused, forbidden, missing, of another kind, or past a limit; says which.
        """
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await self._follow(url)
        except TimeoutError:
            raise NoPage(f"not here within {self._limits.timeout_s:g} s", for_good=False) from None
        except Refused as error:
            raise NoPage(f"refused: {error}") from None
        except (OSError, self._http.RequestError) as error:
            raise NoPage(f"{type(error).__name__}: {error}", for_good=False) from None
        except (self._http.InvalidURL, ValueError) as error:  # of what a server sent
            raise NoPage(f"not to be understood: {error}") from None

    async def _follow(self, url: str) -> Page:
        for _ in range(self._limits.redirects + 1):
            target = await check(url, self._allowed, self._resolver)
            if self._limits.robots and not await self._welcome(target):
                raise NoPage("robots.txt forbids it")
            status, headers, body = await self._get(target, self._limits.max_bytes)
            if status in REDIRECTS and "location" in headers:
                url = urljoin(url, headers["location"])
                continue
            if status != 200:
                raise NoPage(f"status {status}", for_good=status < 500 and status not in (408, 429))
            kind, charset = _content_type(headers.get("content-type", ""))
            return Page(url, kind, charset, body)
        raise NoPage(f"more than {self._limits.redirects} redirects")

    async def _get(self, target: Target, most: int, kinds: Collection[str] = KINDS) -> tuple[int, Any, bytes]:
        """Status, headers, and the body of a reply that is a page.

        Raises:
            NoPage: more than `most` bytes, or another kind of content.
        """
        host = f"[{target.address}]" if ":" in target.address else target.address
        url = self._http.URL(target.url).copy_with(host=host, port=target.port, fragment=None)
        headers = {
            "Host": target.authority,
            "User-Agent": USER_AGENT,
            "Accept": ", ".join(KINDS),
            "Accept-Encoding": "gzip",
        }
        # A new connection each time: one to the same address may have shown the certificate of another host.
        async with self._http.AsyncClient(
            timeout=None, verify=self._certificates, trust_env=False, follow_redirects=False
        ) as client:
            async with client.stream("GET", url, headers=headers, extensions={"sni_hostname": target.host}) as reply:
                if reply.status_code != 200:
                    return reply.status_code, reply.headers, b""
                if kinds and _content_type(reply.headers.get("content-type", ""))[0] not in kinds:
                    raise NoPage(f"content of type {reply.headers.get('content-type', '')[:80]!r}")
                return reply.status_code, reply.headers, await _body(reply, most)

    async def _welcome(self, target: Target) -> bool:
        """Whether robots.txt of the host lets us fetch the URL (RFC 9309: yes where it has none, no where it fails)."""
        root = f"{target.scheme}://{target.authority}"
        if root not in self._rules:
            self._rules[root] = await self._robots(f"{root}/robots.txt")
        return self._rules[root].can_fetch(AGENT, target.url)

    async def _robots(self, url: str) -> urllib.robotparser.RobotFileParser:
        rules = urllib.robotparser.RobotFileParser()
        for _ in range(self._limits.redirects + 1):
            target = await check(url, self._allowed, self._resolver)
            status, headers, body = await self._get(target, ROBOTS_BYTES, kinds=())
            if status in REDIRECTS and "location" in headers:
                url = urljoin(url, headers["location"])
                continue
            if status >= 500:
                raise NoPage(f"robots.txt: status {status}", for_good=False)
            rules.parse(body.decode(errors="replace").splitlines() if status == 200 else [])
            return rules
        rules.parse([])
        return rules


async def _body(reply: Any, most: int) -> bytes:
    """The body, unpacked.

    Raises:
        NoPage: it is longer than `most`, packed or not, or packed in a way that was not asked for.
    """
    packed = reply.headers.get("content-encoding", "identity").strip().lower()
    if packed not in ("identity", "gzip", "x-gzip", ""):
        raise NoPage(f"content packed as {packed[:20]!r}")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if "gzip" in packed else None
    if int(reply.headers.get("content-length", 0)) > most:
        raise NoPage(f"more than {most:,} bytes")
    body = bytearray()
    try:
        async for part in reply.aiter_raw():
            # Never unpacked further than one byte past the limit: a megabyte of zeros is a kilobyte on the way.
            body += unpack.decompress(part, most + 1 - len(body)) if unpack else part
            if len(body) > most:
                raise NoPage(f"more than {most:,} bytes")
    except zlib.error as error:
        raise NoPage(f"content that can't be unpacked: {error}") from None
    return bytes(body)


def _content_type(header: str) -> tuple[str, str]:
    """Media type and charset."""
    kind, _, rest = header.partition(";")
    charset = next((word.partition("=")[2] for word in rest.split(";") if "charset=" in word.lower()), "")
    return kind.strip().lower(), charset.strip().strip("\"'")
