"""Be gentle with hosts: so many downloads at a time, and a pause where a host asks for one."""

import asyncio
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


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
