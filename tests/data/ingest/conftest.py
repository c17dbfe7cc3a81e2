"""A real web server that misbehaves on demand, and the step around it."""

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.core.step import Metrics
from components.core.tables import Row, read_rows, write_rows
from components.data.ingest.addresses import Resolver
from components.data.ingest.settings import IngestSettings
from components.data.ingest.step import ingest_images
from data_contracts.records import SCHEMA

Answer = Callable[[BaseHTTPRequestHandler], None]


def make_photo(seed: int, width_px: int = 64, height_px: int = 48) -> Image.Image:
    """A smooth picture that differs from seed to seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width_px, height_px), Image.Resampling.BICUBIC)


def encode(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photo() -> Callable[..., Image.Image]:
    return make_photo


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    return encode


@pytest.fixture(scope="session")
def jpeg() -> Callable[[int], bytes]:
    return lambda seed: encode(make_photo(seed))


def send(handler: BaseHTTPRequestHandler, data: bytes, status: int = 200, **headers: str) -> None:
    """An ordinary answer; `X_Robots_Tag="noai"` sends the header X-Robots-Tag."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


@dataclass
class Site:
    """Answers by path, and counts who asked for what."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    requests: list[dict[str, str]] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def serve(self, path: str, data: bytes, status: int = 200, **headers: str) -> str:
        return self.on(path, lambda handler: send(handler, data, status, **headers))

    def on(self, path: str, answer: Answer) -> str:
        self.answers[path] = answer
        return self.url(path)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.asked[self.path] += 1
            site.requests.append(dict(self.headers))
            answer = site.answers.get(self.path)
            try:
                answer(self) if answer else send(self, b"nothing here", 404)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        site.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield site
        server.shutdown()


@dataclass
class Result:
    """What a run of the step left."""

    images: Path
    metrics: Metrics
    rows: dict[str, Row]
    quarantine: list[Row]

    def reason(self, url: str) -> str:
        return self.rows[url]["reason"]


def record(number: int, url: str) -> Row:
    return {
        "region_id": f"{number}-00",
        "record_id": str(number),
        "url": url,
        "image_caption": "a caption",
        "phrase": "a thing",
        "box_norm": [0.1, 0.1, 0.9, 0.9],
        "score": 0.9,
        "split": "",
        "subset": "",
    }


QUICK = {
    "allowed_hosts": ["127.0.0.1"],
    "min_side_px": 16,
    "min_success_rate": 0,
    "retries": 1,
    "backoff_s": 0.01,
}
Run = Callable[..., Result]


@pytest.fixture
def write_records(tmp_path: Path) -> Callable[[list[str]], Path]:
    def write(urls: list[str]) -> Path:
        rows = (record(number, url) for number, url in enumerate(urls))
        write_rows(tmp_path / "records" / "part-00000.parquet", rows, SCHEMA)
        return tmp_path / "records"

    return write


@pytest.fixture
def ingest_urls(tmp_path: Path, write_records: Callable[[list[str]], Path]) -> Run:
    """Run the step's function on URLs; `into` is the name of the draft."""

    def run_ingest(
        urls: list[str], into: str = "images", resolver: Resolver | None = None, **settings: object
    ) -> Result:
        images, quarantine = tmp_path / into, tmp_path / f"{into}-quarantine.parquet"
        checked = IngestSettings(**{**QUICK, **settings})
        metrics = ingest_images(write_records(urls), images, quarantine, checked, resolver)
        rows = {row["url"]: row for row in read_rows(images)}
        return Result(images, metrics, rows, list(read_rows(quarantine)))

    return run_ingest
