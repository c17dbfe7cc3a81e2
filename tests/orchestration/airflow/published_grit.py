"""What GRIT's users have: Parquet files as published, and a web server with the pictures."""

import io
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from data_contracts.grit import SCHEMA

FIRST_ID = 10**12
SIZE_PX = (400, 300)
CAPTION = "a red kettle next to a blue lantern on the table"
# Two phrases of the caption with their boxes and colours.
REGIONS = [
    [2.0, 12.0, 0.08, 0.25, 0.42, 0.8, 0.95],
    [23.0, 37.0, 0.55, 0.2, 0.92, 0.75, 0.9],
]
COLOURS = [(200, 30, 30), (30, 40, 200)]


def picture(seed: int) -> bytes:
    """A JPEG with an ellipse in each box, before a background of its own."""
    noise = np.random.default_rng(seed).integers(90, 170, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(SIZE_PX, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for region, colour in zip(REGIONS, COLOURS, strict=True):
        x1, y1, x2, y2 = (v * side for v, side in zip(region[2:6], SIZE_PX * 2, strict=True))
        draw.ellipse([x1 + 8, y1 + 8, x2 - 8, y2 - 8], fill=colour)
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


class WebServer:
    """Serves files on a free port of 127.0.0.1 and counts what it is asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.asked: Counter[str] = Counter()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(files, self.asked))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "WebServer":
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def _handler(files: dict[str, bytes], asked: Counter[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            asked[self.path] += 1
            body = files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

    return Handler


def parquet(start: int, urls: list[str]) -> bytes:
    """A file of records as GRIT publishes them: none of the columns that our own sources add."""
    rows = [record(start + i, url) for i, url in enumerate(urls)]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), file, compression="snappy")
    return file.getvalue()


def record(n: int, url: str) -> dict[str, object]:
    """A record; every one has the same caption and regions."""
    similarity = {"clip_similarity_vitb32": 0.3, "clip_similarity_vitl14": 0.3}
    image = {"url": url, "caption": CAPTION, "width": SIZE_PX[0], "height": SIZE_PX[1]}
    regions = {"noun_chunks": REGIONS, "ref_exps": REGIONS}
    return {"key": f"{n:09d}", "id": FIRST_ID + n, **similarity, **image, **regions}
