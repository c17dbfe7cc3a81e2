"""Which endpoint takes the next request: limits that adapt, back-off, dead endpoints, probes.

An endpoint may serve several stages; its limit holds for all of them together. The limit halves
when the endpoint says that it is overloaded (429, 503) and grows by one for every round of answers
(additive increase, multiplicative decrease, as in TCP). An endpoint that fails several times in
a row leaves the rotation until a probe finds it alive.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

FAILURES_TO_LEAVE = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 60.0


@dataclass(eq=False)
class Endpoint:
    """A server of a model, and what is known of its state."""

    url: str
    max_in_flight: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)  # may hold a key
    limit: float = 0.0  # adapts between 1 and max_in_flight
    num_in_flight: int = 0
    num_failures: int = 0  # in a row
    num_overloads: int = 0  # bursts of them in a row
    is_down: bool = False
    paused_until: float = 0.0  # on the monotonic clock
    last_cut: float = 0.0
    last_success: float = 0.0  # of a request or of a probe
    last_used: int = 0
    probe_model: str = ""
    token_limit_name: str = "max_tokens"  # noqa: S105 - no secret

    def __post_init__(self) -> None:
        self.limit = float(self.max_in_flight)

    def has_room(self, now: float) -> bool:
        """Whether it may get a request now."""
        return (
            not self.is_down and self.paused_until <= now and self.num_in_flight < int(self.limit)
        )


class Rotation:
    """Hands out places at endpoints; those who want the same endpoints wait in one line."""

    def __init__(
        self, probe: Callable[[Endpoint], Awaitable[bool]], probe_interval_s: float
    ) -> None:
        self._probe, self._probe_interval_s = probe, probe_interval_s
        self._lines: dict[tuple[Endpoint, ...], deque[asyncio.Future[Endpoint]]] = {}
        self._probes: set[asyncio.Task[None]] = set()
        self._num_grants = 0
        self._jitter = random.Random()  # noqa: S311 - spreads retries, keeps no secret

    async def acquire(self, endpoints: tuple[Endpoint, ...], timeout_s: float) -> Endpoint:
        """A place at the least busy of these endpoints, as soon as there is one.

        Raises:
            TimeoutError: there was none in that time.
        """
        line = self._lines.setdefault(endpoints, deque())
        place: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        line.append(place)
        self._serve()
        try:
            async with asyncio.timeout(timeout_s):
                return await place
        except (TimeoutError, asyncio.CancelledError):
            if place.done() and not place.cancelled():
                self._release(place.result())  # granted and given up in the same moment
            raise

    def succeeded(self, endpoint: Endpoint) -> None:
        """Give a place back after an answer."""
        endpoint.num_failures = endpoint.num_overloads = 0
        endpoint.last_success = time.monotonic()
        endpoint.limit = min(endpoint.limit + 1 / endpoint.limit, endpoint.max_in_flight)
        self._release(endpoint)

    def overloaded(self, endpoint: Endpoint, sent_at: float, retry_after_s: float | None) -> None:
        """Give a place back after a 429 or 503, and leave the endpoint alone for a while."""
        if sent_at >= endpoint.last_cut:  # one cut for all requests of the same burst
            endpoint.num_overloads += 1
            endpoint.limit, endpoint.last_cut = max(endpoint.limit / 2, 1.0), time.monotonic()
        if retry_after_s is None:
            retry_after_s = self.backoff_s(endpoint.num_overloads)
        self._pause(endpoint, min(retry_after_s, LONGEST_PAUSE_S))
        self._release(endpoint)

    def failed(self, endpoint: Endpoint, why: str) -> None:
        """Give a place back after a time-out, a reset or a server error."""
        endpoint.num_failures += 1
        if endpoint.num_failures >= FAILURES_TO_LEAVE and not endpoint.is_down:
            endpoint.is_down = True
            log.warning("endpoint %s leaves the rotation: it keeps failing (%s)", endpoint.url, why)
            task = asyncio.get_running_loop().create_task(self._bring_back(endpoint))
            self._probes.add(task)
            task.add_done_callback(self._probes.discard)
        self._release(endpoint)

    def unused(self, endpoint: Endpoint) -> None:
        """Give a place back without a verdict on the endpoint."""
        self._release(endpoint)

    async def close(self) -> None:
        """Stop probing."""
        for task in self._probes:
            task.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)

    def backoff_s(self, num_tries: int) -> float:
        """A pause that doubles with every try, with jitter."""
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(num_tries - 1, 16), LONGEST_PAUSE_S / 2)
        return pause_s * self._jitter.uniform(0.5, 1.5)

    def _choose(self, endpoints: Sequence[Endpoint]) -> Endpoint | None:
        now = time.monotonic()
        free = [endpoint for endpoint in endpoints if endpoint.has_room(now)]
        return min(free, key=lambda e: (e.num_in_flight / e.limit, e.last_used)) if free else None

    def _grant(self, endpoint: Endpoint) -> Endpoint:
        self._num_grants += 1
        endpoint.last_used = self._num_grants
        endpoint.num_in_flight += 1
        return endpoint

    def _release(self, endpoint: Endpoint) -> None:
        endpoint.num_in_flight -= 1
        self._serve()

    def _serve(self) -> None:
        """Hand free places to those who wait; later stages first, so that regions get done."""
        for endpoints, line in reversed(self._lines.items()):
            while line:
                if line[0].done():  # cancelled while it waited
                    line.popleft()
                    continue
                endpoint = self._choose(endpoints)
                if endpoint is None:
                    break
                line.popleft().set_result(self._grant(endpoint))

    def _pause(self, endpoint: Endpoint, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        if until > endpoint.paused_until:
            endpoint.paused_until = until
            asyncio.get_running_loop().call_later(pause_s + 0.001, self._serve)

    async def _bring_back(self, endpoint: Endpoint) -> None:
        is_alive = False
        while not is_alive:
            await asyncio.sleep(self._probe_interval_s)
            is_alive = await self._probe(endpoint)
        log.warning("endpoint %s is back in the rotation", endpoint.url)
        endpoint.is_down, endpoint.num_failures = False, 0
        endpoint.last_success = time.monotonic()
        endpoint.limit = max(endpoint.max_in_flight / 4, 1.0)
        self._serve()
