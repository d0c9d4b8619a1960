"""Which hosts a page may be fetched from: public ones, so that no search result reaches into this network."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]


class Refused(Exception):
    """A URL that is not fetched, and why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be fetched, and the address to connect to: the one that was looked at, not what DNS says next."""

    url: str
    scheme: str
    host: str
    port: int
    address: str

    @property
    def authority(self) -> str:
        """Host, and port where it is not the scheme's own, as in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system gives them.

    Raises:
        OSError: there is none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def check(url: str, allowed: Collection[str], resolver: Resolve = resolve) -> Target:
    """Where to connect for a URL.

    Args:
        allowed: hosts (`intranet`, `127.0.0.1:8080`) whose addresses may be any.

    Raises:
        Refused: neither http nor https, a name or password in it, or a host that has an address which is not public.
        OSError: the host has no address.
    """
    scheme, host, port = parts(url)
    try:
        addresses = await resolver(host, port)
    except UnicodeError as error:
        raise Refused(f"{host[:80]} is no host: {error}") from None
    strange = [address for address in addresses if not public(address)]
    if strange and not {host, f"{host}:{port}"} & set(allowed):
        raise Refused(f"{host} has the address {strange[0]}, which is not public")
    if not addresses:
        raise Refused(f"{host} has no address")
    return Target(url, scheme, host, port, addresses[0])


def parts(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL.

    Raises:
        Refused: see `check`; also a host that is a number in another form than that of an address.
    """
    try:
        split = urlsplit(url)
        port, host = split.port, (split.hostname or "").rstrip(".")
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        raise Refused(f"not a URL: {error}") from None
    if split.scheme not in PORTS or not host:
        raise Refused("neither http nor https, or without a host")
    if split.username is not None or split.password is not None:
        raise Refused("a name or password in the URL")
    if re.search(r"[\s\x00-\x1f\\%]", split.netloc):
        raise Refused(f"{host!r} is no host")
    if looks_numeric(host) and not _address(host):
        raise Refused(f"{host} is a number, but no address")
    return split.scheme, host, port or PORTS[split.scheme]


def looks_numeric(host: str) -> bool:
    """Whether systems may read the host as an IPv4 address: `2130706433`, `0177.1`, `0x7f.0.0.1` (URL standard)."""
    last = host.rpartition(".")[2].lower()
    return last.isdecimal() or re.fullmatch(r"0x[0-9a-f]*", last) is not None


def public(address: str) -> bool:
    """Whether an address is one of the public internet's. IPv6 addresses that lead to an IPv4 one (mapped, 6to4,
    Teredo, NAT64) are none: what they lead to is for a gateway to say."""
    found = _address(address)
    if found is None or _carries_another(found):
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_private)


def _carries_another(address: Address) -> bool:
    # NAT64's prefixes and the old IPv4-compatible addresses lie in ::/8, which `is_reserved` covers.
    return isinstance(address, ipaddress.IPv6Address) and any(
        inner is not None for inner in (address.ipv4_mapped, address.sixtofour, address.teredo)
    )


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
