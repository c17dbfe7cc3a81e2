"""Guard addresses, and be gentle with hosts.

Private addresses are refused: every address a host resolves to is checked, and only those are used.
Each host gets so many downloads at a time, and a pause where it asks for one.

The connector of `guarded_connector` connects to nothing but the addresses that passed the check,
so a name that resolves differently a moment later (DNS rebinding) gains nothing. TLS names and
the Host header stay those of the URL.
"""

import asyncio
import ipaddress
import socket
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from components.data.ingest.failures import FetchError
from data_contracts.reasons import IngestReason

DNS_CACHE_S = 300
RESOLVES_PRIVATELY = "resolves to a private address"
# Written out, because what `ipaddress` calls global differs from one Python to the next:
# https://www.iana.org/assignments/iana-ipv4-special-registry and …/iana-ipv6-special-registry,
# multicast and reserved space.
NOT_PUBLIC_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by a provider's customers
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # answered by the cloud around a virtual machine (Azure)
            "169.254.0.0/16",  # link-local, and the metadata of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments (and the metadata of Oracle's cloud)
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
# All else of IPv6 is loopback, local, multicast, translation, or not in use (fec0::, 5f00::, …).
UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
NOT_PUBLIC_V6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocols: Teredo, benchmarks, ORCHID, …
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which leads to any IPv4 address
            "3fff::/20",  # documentation
        ),
    )
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Resolver(Protocol):
    """Finds the addresses of a host name; the seam for tests."""

    async def addresses(self, host: str) -> list[str]:
        """All addresses of the host, as text.

        Raises:
            OSError: it has none.
        """
        ...


class SystemResolver:
    """The operating system's resolver, in threads of its own."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def addresses(self, host: str) -> list[str]:
        """All addresses of the host."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(info[4][0]) for info in found))


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, also when it is wrapped in IPv6."""
    try:
        ip: IpAddress = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is not None:
        return False  # an interface of this machine
    if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped or ip in NAT64):
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)  # what a socket would really reach
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in NOT_PUBLIC_V4)
    return ip in UNICAST_V6 and not any(ip in network for network in NOT_PUBLIC_V6)


def plain_host(host: str) -> str:
    """A host's name as it is compared."""
    return host.lower().rstrip(".")


class AddressGuard(AbstractResolver):
    """Resolves for aiohttp; a host with any private address is refused, unless it is allowed."""

    def __init__(self, resolver: Resolver, allowed_hosts: Iterable[str]) -> None:
        self._resolver = resolver
        self._allowed_hosts = frozenset(map(plain_host, allowed_hosts))
        self._allowed_addresses = set(self._allowed_hosts)

    def is_allowed(self, host: str) -> bool:
        """Whether the settings let this host have private addresses."""
        return plain_host(host) in self._allowed_hosts

    def require_public_literal(self, host: str) -> None:
        """Check a host that is an address already: no resolver is asked for those.

        Raises:
            FetchError: a private address, or a number that only looks like a name.
        """
        if self.is_allowed(host):
            return
        try:
            ipaddress.ip_address(host)
        except ValueError:
            # "2130706433" and "127.1" are addresses to a socket, though not in canonical form.
            if host.replace(".", "").isdigit() or ":" in host:
                raise FetchError(
                    IngestReason.BAD_URL, "the host is a number in an unusual form"
                ) from None
            return
        if not is_public(host):
            raise FetchError(IngestReason.PRIVATE_ADDRESS, host)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The checked addresses of a host.

        Raises:
            FetchError: `private_address`, `dns_failure`.
        """
        found = await self._lookup(host)
        if self.is_allowed(host):
            self._allowed_addresses.update(found)
        elif not all(is_public(address) for address in found):
            raise FetchError(IngestReason.PRIVATE_ADDRESS, f"{host} {RESOLVES_PRIVATELY}")
        return [_resolve_result(host, address, port) for address in found]

    async def _lookup(self, host: str) -> list[str]:
        try:
            found = await self._resolver.addresses(host)
        except socket.gaierror as error:
            is_transient = error.errno == socket.EAI_AGAIN
            raise FetchError(IngestReason.DNS_FAILURE, host, is_transient=is_transient) from None
        except (OSError, UnicodeError):
            raise FetchError(IngestReason.DNS_FAILURE, host) from None
        if not found:
            raise FetchError(IngestReason.DNS_FAILURE, host)
        return found

    def open_socket(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket for an address about to be connected to: the last look at it.

        Raises:
            FetchError: the address never passed the check.
        """
        family, kind, protocol, _, target = info
        address = str(target[0])
        if not (is_public(address) or address in self._allowed_addresses):
            raise FetchError(IngestReason.PRIVATE_ADDRESS, address)
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Nothing to release."""


def _resolve_result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(
        hostname=host, host=address, port=port, family=family, proto=0, flags=flags
    )


def guarded_connector(guard: AddressGuard, *, verify_tls: bool) -> TCPConnector:
    """A connector that reaches checked addresses only; limits are the caller's."""
    return TCPConnector(
        resolver=guard,
        socket_factory=guard.open_socket,
        ttl_dns_cache=DNS_CACHE_S,
        ssl=verify_tls,
        limit=0,
    )


class HostGate:
    """Bounds the downloads as a whole and for each host.

    Whoever waits for a host holds no place that another host's download could take.
    """

    def __init__(self, concurrency: int, concurrency_per_host: int) -> None:
        self._all = asyncio.Semaphore(concurrency)
        self._hosts: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(concurrency_per_host)
        )
        self._quiet_until_s: dict[str, float] = {}

    @asynccontextmanager
    async def turn(self, url: str) -> AsyncIterator[None]:
        """Wait until it is this URL's turn."""
        host = host_of(url)
        async with self._hosts[host]:
            while True:
                await asyncio.sleep(self._pause_s(host))
                async with self._all:
                    if self._pause_s(host) <= 0:  # it may have begun while we waited our turn
                        yield
                        return

    def _pause_s(self, host: str) -> float:
        return self._quiet_until_s.get(host, 0.0) - _now_s()

    def back_off(self, url: str, pause_s: float) -> None:
        """Leave the host of a URL alone for a while; said before its turn ends."""
        host = host_of(url)
        quiet_until_s = _now_s() + pause_s
        self._quiet_until_s[host] = max(self._quiet_until_s.get(host, 0.0), quiet_until_s)


def host_of(url: str) -> str:
    """The host of a URL, or all of it where it has none."""
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url


def pause_before_retry_s(url: str, attempt: int, backoff_s: float, max_backoff_s: float) -> float:
    """Exponential pause with a jitter of half, which the URL and the attempt decide."""
    jitter = zlib.crc32(f"{attempt} {url}".encode(errors="replace")) / 2**32
    return min(backoff_s * 2.0**attempt * (0.5 + jitter), max_backoff_s)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
