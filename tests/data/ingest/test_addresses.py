import asyncio
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.ingest.addresses import AddressGuard, is_public
from components.data.ingest.failures import FetchError

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
    "not an address",
    # The rest of IANA's registries of special addresses, first and last of each.
    "0.255.255.255",
    "10.255.255.255",
    "100.127.255.255",
    "127.255.255.255",
    "169.254.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.8",
    "192.0.0.9",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.255.255",
    "198.19.255.255",
    "198.51.100.255",
    "203.0.113.7",
    "239.255.255.255",
    "254.0.0.1",
    "::ffff:0:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:100.64.0.1",
    "::8.8.8.8",
    "::ffff:0:0:8.8.8.8",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::6440:1",
    "64:ff9b:1::1",
    "64:ff9b:1::808:808",
    "64:ff9b:1:ffff::1",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:0:808:808::1",
    "2001:2::1",
    "2001:3::1",
    "2001:4:112::1",
    "2001:10::1",
    "2001:20::1",
    "2001:30::1",
    "2001:1ff:ffff::1",
    "2002:808:808::1",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "3fff:fff:ffff::1",
    "4000::1",
    "5f00::1",
    "8000::1",
    "c000::1",
    "e000::1",
    "f800::1",
    "fdff:ffff::1",
    "febf::1",
    "fec0::1",
    "feff:ffff::1",
    "ff0e::1",
    "2606:2800:220:1::1%eth0",
    "0177.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "\uff11\uff12\uff17.0.0.1",
    "",
]


class FixedResolver:
    """Gives its answers one after the other; the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def addresses(self, host: str) -> list[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


class FailingResolver:
    def __init__(self, code: int) -> None:
        self.code = code

    async def addresses(self, host: str) -> list[str]:
        raise socket.gaierror(self.code, "no such host")


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_of_the_open_internet_is_refused(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "93.184.216.34",
        "2606:2800:220:1::1",
        "::ffff:93.184.216.34",
        "64:ff9b::5db8:d822",
        "1.0.0.0",
        "9.255.255.255",
        "100.63.255.255",
        "100.128.0.0",
        "172.32.0.0",
        "192.0.1.0",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2001:db7::1",
        "2003::1",
        "2620:fe::fe",
        "3ffe::1",
    ],
)
def test_a_public_address_is_accepted(address):
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_in_ipv6_never_makes_it_public(ip):
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | int(ip))
    assert is_public(str(mapped)) == is_public(str(ip))


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_public(ip):
    if ip.is_private or ip.is_multicast or ip.is_reserved or ip.is_link_local:
        mapped = getattr(ip, "ipv4_mapped", None)  # Pythons differ about these
        assert not is_public(str(ip)) or mapped or "64:ff9b::" in str(ip)


@given(st.ip_addresses(v=4))
def test_a_translated_address_is_as_public_as_what_it_stands_for(ip):
    translated = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | int(ip))
    assert is_public(str(translated)) == is_public(str(ip))
    for prefix in ("2002::", "64:ff9b:1::", "::"):
        base = int(ipaddress.IPv6Address(prefix))
        shift = 80 if prefix == "2002::" else 0
        assert not is_public(str(ipaddress.IPv6Address(base | int(ip) << shift)))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "2130706433", "127.1", "0"],
)
def test_a_url_with_a_private_address_is_refused(site, ingest_urls, host):
    url = site.url("/a.jpg", host)
    result = ingest_urls([url], allowed_hosts=[])
    assert result.reason(url) in {"private_address", "bad_url"}
    assert not site.asked


@pytest.mark.parametrize("host", ["0x7f000001", "0x7f.1", "localhost", "127.0.0.1.", "LOCALHOST"])
def test_a_name_that_the_system_takes_for_a_private_address_is_refused(site, ingest_urls, host):
    url = site.url("/a.jpg", host)
    assert ingest_urls([url], allowed_hosts=[]).reason(url) in {
        "private_address",
        "dns_failure",
        "bad_url",
    }
    assert not site.asked


def test_one_private_address_among_public_ones_refuses_the_host(site, ingest_urls):
    url = site.url("/a.jpg", "mixed.test")
    resolver = FixedResolver(["93.184.216.34", "127.0.0.1"])
    assert ingest_urls([url], resolver=resolver).reason(url) == "private_address"
    assert not site.asked


def test_an_allowed_host_may_be_private_and_keeps_its_name(site, ingest_urls, jpeg):
    site.serve("/a.jpg", jpeg(1))
    url = site.url("/a.jpg", "images.test")
    resolver = FixedResolver(["127.0.0.1"])
    result = ingest_urls([url], resolver=resolver, allowed_hosts=["images.test"])
    assert result.reason(url) == ""
    assert site.requests[0]["Host"] == f"images.test:{site.port}"


def test_allowing_one_host_allows_no_other(site, ingest_urls, jpeg):
    site.serve("/a.jpg", jpeg(1))
    urls = [site.url("/a.jpg", "images.test"), site.url("/a.jpg")]
    resolver = FixedResolver(["127.0.0.1"])
    hosts = ["images.test"]
    result = ingest_urls(urls, resolver=resolver, allowed_hosts=hosts, concurrency=1)
    assert [result.reason(url) for url in urls] == ["", "private_address"]


@pytest.mark.parametrize("target", ["127.0.0.2", "inside.test", "[::1]", "2130706433"])
def test_a_redirect_to_a_private_address_is_refused(site, ingest_urls, jpeg, target):
    site.serve("/secret.jpg", jpeg(1))
    url = site.serve("/moved", b"", 302, Location=site.url("/secret.jpg", target))
    result = ingest_urls([url], resolver=FixedResolver(["127.0.0.1"]))
    assert result.reason(url) in {"private_address", "bad_url"}
    assert not site.asked["/secret.jpg"]


def test_a_name_that_turns_private_is_refused_when_it_is_asked_again():
    guard = AddressGuard(FixedResolver(["93.184.216.34"], ["127.0.0.1"]), [])
    found = asyncio.run(guard.resolve("rebind.test", 80))
    assert [item["host"] for item in found] == ["93.184.216.34"]
    with pytest.raises(FetchError, match="private_address"):
        asyncio.run(guard.resolve("rebind.test", 80))


def test_nobody_resolves_a_name_between_the_check_and_the_connection(site, ingest_urls, jpeg):
    """DNS rebinding: the second answer would lead elsewhere; the system knows no such name."""
    site.serve("/a.jpg", jpeg(1))
    url = site.url("/a.jpg", "rebind.test")
    resolver = FixedResolver(["127.0.0.1"], ["127.0.0.2"])
    result = ingest_urls([url], resolver=resolver, allowed_hosts=["rebind.test"])
    assert result.reason(url) == ""
    assert resolver.asked == 1


def test_no_socket_is_opened_to_an_address_that_was_never_checked():
    guard = AddressGuard(FixedResolver(["127.0.0.1"]), [])
    info = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))
    with pytest.raises(FetchError, match="private_address"):
        guard.open_socket(info)


@pytest.mark.parametrize(
    ("code", "is_transient"), [(socket.EAI_NONAME, False), (socket.EAI_AGAIN, True)]
)
def test_a_name_without_address_is_a_dns_failure(code, is_transient):
    guard = AddressGuard(FailingResolver(code), [])
    with pytest.raises(FetchError, match="dns_failure") as caught:
        asyncio.run(guard.resolve("gone.test"))
    assert caught.value.is_transient is is_transient
