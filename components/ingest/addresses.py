"""Refuse private addresses: every address a host resolves to is checked, and only those are used.

The connector of `guarded_connector` connects to nothing but the addresses that passed the check,
so a name that resolves differently a moment later (DNS rebinding) gains nothing. TLS names and
the Host header stay those of the URL.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Protocol

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from components.ingest.failures import FetchError

DNS_CACHE_S = 300
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Public by number, but answered by the cloud around a virtual machine (Azure, Oracle).
METADATA_NETWORKS = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24")))
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
    return all(_is_public_ip(inner) for inner in _unwrapped(ip))


def _unwrapped(ip: IpAddress) -> Iterable[IpAddress]:
    """The address, or the IPv4 addresses that an IPv6 address stands for."""
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    if ip.ipv4_mapped:
        return [ip.ipv4_mapped]
    if ip in NAT64:
        return [ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)]
    if ip.sixtofour:
        return [ip, ip.sixtofour]
    return [ip, *(ip.teredo or ())]


def _is_public_ip(ip: IpAddress) -> bool:
    return (
        ip.is_global
        and not (ip.is_multicast or ip.is_reserved or ip.is_link_local or ip.is_loopback)
        and not any(ip in network for network in METADATA_NETWORKS)
    )


class AddressGuard(AbstractResolver):
    """Resolves for aiohttp; a host with any private address is refused, unless it is allowed."""

    def __init__(self, resolver: Resolver, allowed_hosts: Iterable[str]) -> None:
        self._resolver = resolver
        self._allowed_hosts = frozenset(host.lower().rstrip(".") for host in allowed_hosts)
        self._allowed_addresses = set(self._allowed_hosts)

    def is_allowed(self, host: str) -> bool:
        """Whether the settings let this host have private addresses."""
        return host.lower().rstrip(".") in self._allowed_hosts

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
                raise FetchError("bad_url", "the host is a number in an unusual form") from None
            return
        if not is_public(host):
            raise FetchError("private_address", host)

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
            raise FetchError("private_address", f"{host} resolves to a private address")
        return [_resolve_result(host, address, port) for address in found]

    async def _lookup(self, host: str) -> list[str]:
        try:
            found = await self._resolver.addresses(host)
        except socket.gaierror as error:
            is_transient = error.errno == socket.EAI_AGAIN
            raise FetchError("dns_failure", host, is_transient=is_transient) from None
        except (OSError, UnicodeError):
            raise FetchError("dns_failure", host) from None
        if not found:
            raise FetchError("dns_failure", host)
        return found

    def open_socket(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket for an address about to be connected to: the last look at it.

        Raises:
            FetchError: the address never passed the check.
        """
        family, kind, protocol, _, target = info
        address = str(target[0])
        if not (is_public(address) or address in self._allowed_addresses):
            raise FetchError("private_address", address)
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
