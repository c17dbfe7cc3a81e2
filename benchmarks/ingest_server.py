"""The server of `ingest_vs_img2dataset.py`: photographs, and everything that is wrong with the web.

    .venv/bin/python benchmarks/ingest_server.py 2000 [folder of photographs]

Prints its port. What an image number gets is fixed: `/7.jpg` is always the same.
"""

import asyncio
import io
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
from aiohttp import web
from PIL import Image

SIDES_PX = (320, 480, 640, 800, 1024, 1280, 1600)
NUM_BODIES = 140
SLOW_S = 2.0
HUGE_BYTES, PIECE_BYTES = 60_000_000, 2**20
# Of every hundred URLs.
MISSING, SLOW, CUT, PAGE, PNG = {3, 33, 63}, {14, 74}, {25, 85}, {47}, {58}
HUGE_EVERY = 400


def load_pictures(folder: str) -> list[Image.Image]:
    """Photographs, or smooth noise where there are none."""
    paths = sorted(Path(folder).rglob("*.jpg"))[:40] if folder else []
    if paths:
        return [Image.open(path).convert("RGB").resize((1600, 1200)) for path in paths]
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (24, 32, 3), dtype=np.uint8) for _ in range(10)]
    grain = rng.normal(0, 12, (1200, 1600, 1))
    smooth = [np.asarray(Image.fromarray(item).resize((1600, 1200))) for item in noise]
    return [Image.fromarray(np.clip(item + grain, 0, 255).astype(np.uint8)) for item in smooth]


def make_bodies(folder: str) -> list[bytes]:
    """JPEG files of many sizes."""
    pictures, bodies = load_pictures(folder), []
    for number in range(NUM_BODIES):
        width_px = SIDES_PX[number % len(SIDES_PX)]
        picture = pictures[number % len(pictures)].resize((width_px, width_px * 3 // 4))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG" if number in PNG else "JPEG", quality=85)
        bodies.append(buffer.getvalue())
    return bodies


class Server:
    """Answers `/<number>.jpg`."""

    def __init__(self, bodies: list[bytes]) -> None:
        self.bodies = bodies

    def body(self, number: int) -> bytes:
        """Bytes of their own for every number: what follows the end of a JPEG is ignored."""
        return self.bodies[number % len(self.bodies)] + b"%d" % number

    async def answer(self, request: web.Request) -> web.StreamResponse:
        number = int(request.match_info["number"])
        kind = number % 100
        if number % HUGE_EVERY == HUGE_EVERY - 1:
            return await self.huge(request, self.body(number))
        if kind in MISSING:
            return web.Response(status=404)
        if kind in PAGE:
            return web.Response(text="<html>" + "no picture here " * 500, content_type="text/html")
        if kind in CUT:
            return await self.cut(request, self.body(number))
        if kind in SLOW:
            await asyncio.sleep(SLOW_S)
        return web.Response(body=self.body(number), content_type="image/jpeg")

    async def cut(self, request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        assert request.transport
        request.transport.close()
        return response

    async def huge(self, request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(body[:5000])
        with suppress(ConnectionError):  # the client has had enough
            for _ in range(HUGE_BYTES // PIECE_BYTES):
                await response.write(bytes(PIECE_BYTES))
        return response


async def serve(folder: str) -> None:
    app = web.Application()
    app.router.add_get("/{number}.jpg", Server(make_bodies(folder)).answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[2] if len(sys.argv) > 2 else ""))
