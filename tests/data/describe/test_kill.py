"""kill -9 at random moments: the same bytes in the end, and no answered request asked twice.

What counts as answered: the server wrote the whole answer, and the client gave a sign of having
read it, which is that it used the same connection again. (An answer that was still on its way when
the process died was never received; at most one for each place in flight.) The client keeps an
answer before it sends anything else, so such an answer must be in the cache.
"""

import multiprocessing
import os
import random
import signal
import time

from describe_world import Result, World, make_world, settings_for
from llm_server import Asked, LlmServer

CONCURRENCY, NUM_KILLS, LATENCY_S = 4, 10, 0.02
PROCESSES = multiprocessing.get_context("forkserver")  # imports once, then forks quickly
PROCESSES.set_forkserver_preload(["describe_world", "describe_warm"])


def start(world: World, url: str) -> multiprocessing.process.BaseProcess:
    """Start the step in a process of its own, on the same drafts each time."""
    settings = settings_for(url, concurrency=CONCURRENCY)
    process = PROCESSES.Process(target=world.run, args=(settings, "killed"))
    process.start()
    return process


def kill_while_it_asks(server: LlmServer, world: World, moments: random.Random) -> list[Asked]:
    """Kill the step at a random moment after a random request; gives what it had asked."""
    num_before, num_requests = len(server.asked), moments.randint(1, 24)
    process = start(world, server.url)
    while len(server.asked) < num_before + num_requests:
        assert process.is_alive(), "it ended before it was killed: give it more to do"
        time.sleep(0.001)
    time.sleep(moments.uniform(0, 2 * LATENCY_S))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    time.sleep(2 * LATENCY_S)  # the server finishes what it was answering
    return server.asked[num_before:]


def received(life: list[Asked]) -> set[str]:
    """Requests of one process whose answer it must have read, by the rule above."""
    last_on = {asked.connection: asked for asked in life}
    return {
        asked.key for asked in life if asked.answered_at and last_on[asked.connection] is not asked
    }


def asked_although_answered(lives: list[list[Asked]]) -> list[str]:
    """Requests that a process sent although it or one before it had read the answer."""
    known: set[str] = set()
    wrong = []
    for life in lives:
        keys = [asked.key for asked in life]
        wrong += [key for key in keys if key in known]
        wrong += [key for key in set(keys) if keys.count(key) > 1]
        known |= received(life)
    return wrong


def test_ten_kills_change_no_byte_and_no_answered_request_is_asked_twice(tmp_path):
    world, moments = make_world(tmp_path, num_images=14, regions_per_image=3), random.Random(7)
    with LlmServer(latency_s=LATENCY_S) as server:
        clean = world.run(settings_for(server.url), "clean")
        num_clean = len(server.asked)
        server.forget()
        lives = [kill_while_it_asks(server, world, moments) for _ in range(NUM_KILLS)]
        num_before = len(server.asked)
        last = start(world, server.url)
        last.join()
        assert last.exitcode == 0
        lives.append(server.asked[num_before:])
    assert asked_although_answered(lives) == []
    assert len(server.asked) - num_clean <= NUM_KILLS * CONCURRENCY
    assert len({asked.key for asked in server.asked}) == num_clean
    assert Result(world.outputs("killed"), {}).digests() == clean.digests()
