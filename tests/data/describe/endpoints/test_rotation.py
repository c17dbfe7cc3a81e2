"""The rotation of endpoints, without a network."""

import asyncio
import time

import pytest

from components.data.llm.rotation import Endpoint, Rotation


def endpoint(name: str = "a", places: int = 2) -> Endpoint:
    return Endpoint(f"http://{name}", places)


async def alive(_: Endpoint) -> bool:
    return True


async def dead(_: Endpoint) -> bool:
    return False


def test_the_least_busy_endpoint_gets_the_next_request():
    async def run() -> list[str]:
        first, second = endpoint("a", 4), endpoint("b", 2)
        rotation = Rotation(alive, 1.0)
        return [(await rotation.acquire((first, second), 1.0)).url[-1] for _ in range(6)]

    assert sorted(asyncio.run(run())) == ["a", "a", "a", "a", "b", "b"]


def test_nobody_gets_more_places_than_there_are():
    async def run() -> None:
        only = endpoint(places=2)
        rotation = Rotation(alive, 1.0)
        for _ in range(2):
            await rotation.acquire((only,), 1.0)
        with pytest.raises(TimeoutError):
            await rotation.acquire((only,), 0.02)
        rotation.succeeded(only)
        assert await rotation.acquire((only,), 1.0) is only

    asyncio.run(run())


def test_an_overloaded_endpoint_is_left_alone_and_gets_half_as_much_once_a_burst():
    async def run() -> None:
        busy = endpoint(places=8)
        rotation = Rotation(alive, 1.0)
        for _ in range(8):
            await rotation.acquire((busy,), 1.0)
        sent_at = time.monotonic()
        for _ in range(8):
            rotation.overloaded(busy, sent_at, retry_after_s=0.2)
        assert busy.limit == 4
        assert await rotation.acquire((busy,), 1.0) is busy
        assert time.monotonic() - sent_at >= 0.2
        rotation.succeeded(busy)
        assert 4 < busy.limit < 5

    asyncio.run(run())


def test_an_endpoint_that_keeps_failing_leaves_until_a_probe_finds_it_alive():
    async def run() -> None:
        broken, replies = endpoint(), iter([False, True])

        async def probe(_: Endpoint) -> bool:
            return next(replies)

        rotation = Rotation(probe, 0.05)
        for _ in range(3):
            rotation.failed(await rotation.acquire((broken,), 1.0), "reset")
        assert broken.is_down
        left = time.monotonic()
        assert await rotation.acquire((broken,), 2.0) is broken
        assert time.monotonic() - left >= 0.1  # the second probe
        await rotation.close()

    asyncio.run(run())


def test_a_cancelled_wait_does_not_keep_a_place():
    async def run() -> None:
        only = endpoint(places=1)
        rotation = Rotation(dead, 1.0)
        await rotation.acquire((only,), 1.0)
        waiting = [asyncio.create_task(rotation.acquire((only,), 1.0)) for _ in range(2)]
        await asyncio.sleep(0)
        rotation.succeeded(only)  # grants the first ...
        waiting[0].cancel()  # ... which is cancelled in the same moment
        assert await waiting[1] is only
        assert only.num_in_flight == 1

    asyncio.run(run())
