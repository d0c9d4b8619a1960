"""Whatever way a host of this network is written, no page is fetched from it."""

import asyncio
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.retrievers.web.addresses import Refused, check, public, resolve

PRIVATE = [
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "0.0.0.0/8"),
    *("224.0.0.0/4", "240.0.0.0/4", "198.18.0.0/15", "::1/128", "fe80::/10", "fc00::/7", "ff00::/8", "::ffff:0:0/96"),
    *("2002::/16", "64:ff9b::/96", "2001:db8::/32", "2001::/32"),
]


def inside(network):
    first, last = int(network[0]), int(network[-1])
    return st.integers(first, last).map(type(network[0]))


addresses = st.sampled_from([ipaddress.ip_network(name) for name in PRIVATE]).flatmap(inside)
ipv4 = addresses.filter(lambda address: address.version == 4)


def checked(url, found=None, allowed=()):
    async def answer(host, port):
        return found

    return asyncio.run(check(url, allowed, answer if found else resolve))


@given(addresses)
def test_an_address_that_is_not_public_is_refused(address):
    assert not public(str(address))
    with pytest.raises(Refused, match="not public"):
        checked("https://example.org/page", [str(address)])


@given(addresses)
def test_one_such_address_among_others_is_enough(address):
    with pytest.raises(Refused, match="not public"):
        checked("https://example.org/page", ["93.184.215.14", str(address)])


def forms(address):
    """Ways to write an IPv4 address that systems understand, or that only look like one."""
    number = int(address)
    parts = address.packed
    return [
        str(address),
        f"{address}.",
        str(number),
        hex(number),
        oct(number).replace("0o", "0"),
        ".".join(hex(part) for part in parts),
        ".".join(f"0{part:o}" for part in parts),
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        f"[::ffff:{address}]",
        f"[::{address}]",
        str(address).replace(".", "。"),
    ]


@given(ipv4, st.data())
def test_however_it_is_written(address, data):
    host = data.draw(st.sampled_from(forms(address)))
    with pytest.raises(Refused):
        checked(f"http://{host}/latest/meta-data")


@given(addresses.filter(lambda address: address.version == 6))
def test_as_a_host_in_brackets(address):
    with pytest.raises(Refused):
        checked(f"http://[{address}]:8080/")


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.org/", "file:///etc/passwd", "gopher://example.org", "//example.org", "example.org", ""),
        *(
            "http://",
            "http://me:pw@example.org/",
            "http://me@example.org",
            "http://@example.org",
            "javascript:alert(1)",
        ),
        *(
            "http://example.org:99999/",
            "http://[::1",
            "http://exa mple.org",
            "http://a\\b.org",
            "http://%31.org",
            "http://" + "a" * 300,
        ),
        "http://[fe80::1%25eth0]/",
    ],
)
def test_what_is_no_url_of_a_page_is_refused(url):
    with pytest.raises(Refused):
        checked(url, ["93.184.215.14"] if "aaa" not in url else None)


def test_a_public_host_is_connected_to_at_the_address_that_was_looked_at():
    target = checked("https://Bücher.example:8443/a?b=c", ["93.184.215.14", "2606:2800::1"])
    assert (target.address, target.host, target.port) == ("93.184.215.14", "xn--bcher-kva.example", 8443)
    assert target.authority == "xn--bcher-kva.example:8443"
    assert checked("http://example.org/", ["93.184.215.14"]).authority == "example.org"


@pytest.mark.parametrize("allowed", ["intranet", "intranet:8080"])
def test_an_allowed_host_may_be_anywhere(allowed):
    assert checked("http://intranet:8080/", ["10.0.0.1"], [allowed]).address == "10.0.0.1"
    with pytest.raises(Refused):
        checked("http://intranet:8081/", ["10.0.0.1"], ["intranet:8080"])


@given(st.text())
def test_no_text_makes_it_fail_otherwise(text):
    async def nowhere(host, port):
        raise OSError("no such host")

    with pytest.raises((Refused, OSError)):
        asyncio.run(check(f"http://{text}", (), nowhere))
