"""A real HTTP server that speaks `/v1/chat/completions`, and fails in every way servers fail.

It answers every stage sensibly and always the same to the same request, unless `fault` says what
shall happen instead. It notes every request, so that tests can count what was asked twice.
"""

import contextlib
import hashlib
import itertools
import json
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COLOURS = ("red", "green", "blue", "yellow", "white", "black", "brown", "grey")
THINGS = ("kettle", "lantern", "parrot", "bicycle", "teapot", "violin", "tomato", "helmet")
SIDES = ("left", "right", "top", "bottom")
RIGHT_CAPTIONS: dict[str, set[str]] = {}  # by phrase: what `verify_change` finds right


@dataclass
class Asked:
    """One request, as the server saw it."""

    stage: str
    body: dict[str, Any]
    key: str  # hash of the body
    connection: int
    nth: int  # how often this very request has come, from 1
    received_at: float
    answered_at: float | None = None  # when all of a good answer had been written
    region: str = ""

    @property
    def text(self) -> str:
        """The text of the last user turn, without pictures."""
        content = self.body["messages"][-1]["content"]
        if isinstance(content, str):
            return content
        return "\n".join(part["text"] for part in content if part["type"] == "text")

    @property
    def pictures(self) -> list[str]:
        """The data URLs of the last user turn."""
        content = self.body["messages"][-1]["content"]
        parts = content if isinstance(content, list) else []
        return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


@dataclass
class Reply:
    """What the server does with a request."""

    content: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"
    body: bytes | None = None  # instead of a chat completion
    is_cut: bool = False  # half the body, then the connection is closed
    is_reset: bool = False  # the connection is reset without an answer
    hang_s: float = 0.0  # silence before the answer


Fault = Callable[[Asked], Reply | None]


def honest_answer(asked: Asked) -> dict[str, Any]:
    """A good answer to any stage; the same to the same request."""
    digest = hashlib.sha256((asked.stage + asked.text).encode()).digest()
    colour, thing = COLOURS[digest[0] % 8], THINGS[digest[1] % 8]
    side, other = SIDES[digest[2] % 4], THINGS[digest[3] % 8]
    if asked.stage == "object":
        return {"caption": f"A {colour} {thing} with a smooth surface and a small dark handle."}
    if asked.stage == "part":
        name = json.loads(re.findall('<untrusted>(".*?")</untrusted>', asked.text)[-1])
        return {
            "caption": f"The {name} is {colour} all over, smooth and small, with a thin dark edge "
            f"that runs around it like the edge of a {thing}.",
            "location": f"It is on the {side} of the object, beside a {other}.",
            "short_caption": f"a {colour} {name}",
        }
    if asked.stage == "whole":
        return {
            "long_caption": f"The photograph shows a {colour} {thing} with all its parts in view, "
            f"standing on the {side} of a table.",
            "short_caption": f"a {colour} {thing}",
        }
    if asked.stage in ("verify", "verify_part", "verify_whole"):
        reason = "The description fits the outlined object."
        return {"consistent": True, "only_visible": True, "valid_english": True, "reason": reason}
    if asked.stage == "context":
        return {"caption": f"The object stands on the {side} of the table, next to a tall {other}."}
    if asked.stage == "merge":
        seen, place = map(json.loads, re.findall('<untrusted>(".*?")</untrusted>', asked.text))
        filler = (
            "Its surface reflects the soft light of the room, and nothing covers any part of it."
        )
        return {"long_caption": f"{seen} {place} {filler}", "short_caption": seen[:40].strip()}
    if asked.stage == "change":
        caption = json.loads(re.findall('<untrusted>(".*?")</untrusted>', asked.text)[-1])
        said = next(colour for colour in COLOURS if colour in caption)
        others = [colour for colour in COLOURS if colour != said]
        return {
            "changes": [
                {"attribute": "colour", "caption": caption.replace(said, colour)}
                for colour in others[:5]
            ]
        }
    if asked.stage == "verify_change":
        # The eye of this verifier: it is told by the tests what is right.
        name, *captions = map(json.loads, re.findall('<untrusted>(".*?")</untrusted>', asked.text))
        right = RIGHT_CAPTIONS.get(name, captions[:1])
        return {
            "captions": [
                {
                    "number": number,
                    "fits": caption in right,
                    "same_thing": True,
                    "valid_english": True,
                    "reason": "As seen.",
                }
                for number, caption in enumerate(captions, 1)
            ]
        }
    return {"keeps_object": True, "keeps_location": True, "reason": "Nothing is lost."}


class LlmServer:
    """The server on a free port of 127.0.0.1; use it as a context manager.

    Models are named `<stage>-model`, which is how it knows what it is asked for.
    """

    def __init__(self, fault: Fault | None = None, latency_s: float = 0.0, port: int = 0) -> None:
        self.fault, self.latency_s = fault, latency_s
        self.asked: list[Asked] = []
        self.num_probes = 0
        self.is_sick = False  # hangs also when it is probed
        self.probe: Reply | None = None  # what it does with probes instead of answering
        self.is_blind = False  # fails when it is probed with a picture
        self.num_in_flight = 0
        self.lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._closing = threading.Event()
        self._http = _Server(("127.0.0.1", port), _handler(self))
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "LlmServer":
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.close_connections()
        self._http.server_close()

    def forget(self) -> None:
        """Forget what was asked so far."""
        with self.lock:
            self.asked.clear()
            self._counts.clear()

    def stages(self) -> Counter[str]:
        """How many requests each stage got."""
        return Counter(asked.stage for asked in self.asked)

    def note(self, body: bytes, connection: int) -> Asked:
        """Note a request."""
        value, key = json.loads(body), hashlib.sha256(body).hexdigest()
        with self.lock:
            self._counts[key] += 1
            self.num_in_flight += 1
            stage = value["model"].removesuffix("-model")
            now = time.monotonic()
            asked = Asked(stage, value, key, connection, self._counts[key], now)
            self.asked.append(asked)
        return asked

    def done(self) -> None:
        """A request is no longer in flight."""
        with self.lock:
            self.num_in_flight -= 1

    def reply_to(self, asked: Asked) -> Reply:
        """What to do with a request."""
        reply = self.fault(asked) if self.fault else None
        return reply or Reply(json.dumps(honest_answer(asked)))

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than the server lives."""
        if seconds:
            self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self.connections: set[socket.socket] = set()
        self.numbers = itertools.count()
        super().__init__(*args)

    def close_connections(self) -> None:
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed in these tests: a connection that ends is no news."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _handler(server: LlmServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            self.server.connections.add(self.connection)
            self.number = next(self.server.numbers)

        def finish(self) -> None:
            self.server.connections.discard(self.connection)
            super().finish()

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            value = json.loads(body)
            if 1 in (value.get("max_tokens"), value.get("max_completion_tokens")):
                self._answer_probe(has_picture=b"image_url" in body)
                return
            asked = server.note(body, self.number)
            asked.body["authorization"] = self.headers.get("Authorization")
            try:
                reply = server.reply_to(asked)
                server.pause(server.latency_s + reply.hang_s)
            finally:
                server.done()
            self._answer(asked, reply)

        def _answer_probe(self, *, has_picture: bool) -> None:
            server.num_probes += 1
            if server.is_sick:
                server.pause(60)
            reply = server.probe or Reply("p")
            if has_picture and server.is_blind:
                reply = Reply(status=500)
            body = completion(reply) if reply.body is None else reply.body
            self._send(reply.status, reply.headers, body)

        def _answer(self, asked: Asked, reply: Reply) -> None:
            if reply.is_reset:
                linger = struct.pack("ii", 1, 0)  # close() then sends a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                return
            body = completion(reply) if reply.body is None else reply.body
            if reply.is_cut:
                self._send(reply.status, reply.headers, body, body[: len(body) // 2])
                self.close_connection = True
                return
            self._send(reply.status, reply.headers, body)
            if reply.status == 200:
                asked.answered_at = time.monotonic()

        def _send(
            self, status: int, headers: dict[str, str], body: bytes, sent: bytes | None = None
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body if sent is None else sent)
            self.wfile.flush()

    return Handler


def completion(reply: Reply) -> bytes:
    """A `chat.completion` object with that content."""
    message = {"role": "assistant", "content": reply.content, "reasoning_content": "I think so."}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }
    ).encode()
