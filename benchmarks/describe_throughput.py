"""`describe` over HTTP beside a bare asyncio client: same server, same requests, same concurrency.

    python benchmarks/describe_throughput.py --regions 1200 --concurrency 32

Measured on two idle cores at 32 requests in flight: 0.97 overall and 0.98 steady (243 and 252
requests a second). A shorter run of 400 regions gives 0.94 and 0.99: start and end weigh more.

A server in a process of its own answers after 50 to 200 ms (by the request's hash). Our client
does all its work: it reads Parquet and images, draws pictures, renders prompts, validates, runs the
gates and keeps every answer in the cache. The bare client sends the very bytes that ours has sent,
recorded in a first run, in a loop of `concurrency` coroutines and reads the JSON; it does nothing
else. Runs are interleaved. Two numbers are told, since stages of one region follow each other and
a run has a start and an end in which not all places are busy:

    overall     requests a second from the first to the last one
    steady      requests a second while the middle 80 % of the answers came in
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "data" / "describe"))

from describe_world import World, make_world, settings_for
from llm_server import Asked, Reply, completion, honest_answer

from components.data.llm.client import ChatClient

FASTEST_S, SLOWEST_S = 0.05, 0.2


async def serve(port: Any) -> None:
    """Answer every request sensibly, after its latency; one coroutine a connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.split(b"content-length:")[1].split(b"\r\n")[0]
                answer, latency_s = answer_to(await reader.readexactly(int(length)))
                await asyncio.sleep(latency_s)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 22)
    port.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def answer_to(body: bytes) -> tuple[bytes, float]:
    """The HTTP response to a request body, and after how many seconds it comes."""
    value, digest = json.loads(body), hashlib.sha256(body).digest()
    asked = Asked(value["model"].removesuffix("-model"), value, "", 0, 1, 0.0)
    content = completion(Reply(json.dumps(honest_answer(asked))))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(content) + content, FASTEST_S + (SLOWEST_S - FASTEST_S) * digest[0] / 255


def run_server(port: Any) -> None:
    """Entry point of the server's process."""
    asyncio.run(serve(port))


class Recorder:
    """Notes the requests that our client sends and when they are answered."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.answered: list[float] = []

    def wrap(self, ask: Callable[..., Any], keep_bodies: bool) -> Callable[..., Any]:
        """`ChatClient.ask` that also takes notes."""

        async def noting(client: ChatClient, name: Any, body: bytes) -> Any:
            if keep_bodies:
                self.bodies.append(body)
            answer = await ask(client, name, body)
            self.answered.append(time.perf_counter())
            return answer

        return noting


def ours(
    world: World, url: str, concurrency: int, name: str, bodies: list[bytes] | None
) -> Recorder:
    """One run of the step with an empty cache."""
    recorder, ask = Recorder(), ChatClient.ask
    ChatClient.ask = recorder.wrap(ask, bodies is not None)  # type: ignore[method-assign]
    try:
        world.run(settings_for(url, concurrency=concurrency), name)
    finally:
        ChatClient.ask = ask  # type: ignore[method-assign]
    if bodies is not None:
        bodies += recorder.bodies
    return recorder


async def bare(bodies: list[bytes], url: str, concurrency: int) -> list[float]:
    """The same requests by nothing but aiohttp; gives when each was answered."""
    answered, waiting = [], iter(bodies)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def worker() -> None:
            for body in waiting:
                async with session.post(f"{url}/chat/completions", data=body) as response:
                    json.loads(await response.read())
                answered.append(time.perf_counter())

        await asyncio.gather(*(worker() for _ in range(concurrency)))
    return answered


def rates(answered: list[float], started: float) -> tuple[float, float]:
    """Requests a second overall and in the middle 80 % of the answers."""
    first, last = int(0.1 * len(answered)), int(0.9 * len(answered))
    steady = (last - first) / (answered[last] - answered[first])
    return len(answered) / (answered[-1] - started), steady


def measure(regions: int, concurrency: int, rounds: int) -> dict[str, Any]:
    """Both clients in turn; medians of the rates and their ratios."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=run_server, args=(sender,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{receiver.recv()}/v1"
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), num_images=regions // 2, regions_per_image=2)
        bodies: list[bytes] = []
        ours(world, url, concurrency, "record", bodies)
        for number in range(rounds):
            started = time.perf_counter()
            recorder = ours(world, url, concurrency, f"run{number}", None)
            found["ours"].append(rates(recorder.answered, started))
            started = time.perf_counter()
            answered = asyncio.run(bare(bodies, url, concurrency))
            found["bare"].append(rates(answered, started))
    process.terminate()
    return summary(found, len(bodies))


def summary(found: dict[str, list[tuple[float, float]]], num_requests: int) -> dict[str, Any]:
    """Medians over the rounds."""
    told: dict[str, Any] = {"requests": num_requests}
    for index, kind in enumerate(("overall", "steady")):
        medians = {
            who: statistics.median(run[index] for run in runs) for who, runs in found.items()
        }
        told[kind] = {who: round(rate, 1) for who, rate in medians.items()}
        told[kind]["ratio"] = round(medians["ours"] / medians["bare"], 3)
    return told


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regions", type=int, default=1200)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.regions, arguments.concurrency, arguments.rounds), indent=1))


if __name__ == "__main__":
    main()
