"""Servers that answer well, but in another form than the one that was asked for."""

import gzip
import json
import zlib
from typing import Any

import pytest
from describe_world import settings_for
from llm_server import Asked, Reply, completion, honest_answer

from components.data.llm.replies import MAX_REPLY_BYTES

USAGE = {"prompt_tokens": 100, "completion_tokens": 20}


def chat(message: dict[str, Any], **fields: Any) -> bytes:
    """A completion with this message."""
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": USAGE, **fields}).encode()


def stream(text: str, ends_with: str = "data: [DONE]\n\n") -> bytes:
    """The events of a streamed answer."""
    pieces = [text[i : i + 7] for i in range(0, len(text), 7)]
    deltas: list[dict[str, Any]] = [{"delta": {"role": "assistant"}, "finish_reason": None}]
    deltas += [{"delta": {"content": piece}, "finish_reason": None} for piece in pieces]
    deltas.append({"delta": {}, "finish_reason": "stop"})
    events = [{"choices": [delta]} for delta in deltas] + [{"choices": [], "usage": USAGE}]
    lines = (f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
    return (": PROCESSING\n\n" + "".join(lines) + ends_with).encode()


def whole(text: str) -> bytes:
    return completion(Reply(text))


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


MANNERS = {
    "JSON in reasoning_content": lambda text: chat({"content": None, "reasoning_content": text}),
    "JSON in reasoning": lambda text: chat({"content": "", "reasoning": f"So:\n{text}"}),
    "JSON as a tool call": lambda text: chat(
        {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": text}}]}
    ),
    "JSON as a tool call's object": lambda text: chat(
        {"content": None, "tool_calls": [{"function": {"arguments": json.loads(text)}}]}
    ),
    "content as one part": lambda text: chat({"content": {"type": "text", "text": text}}),
    "content as an object": lambda text: chat({"content": json.loads(text)}),
    "content as parts": lambda text: chat(
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm {"}]},
                {"type": "text", "text": text[:9]},
                {"type": "text", "text": text[9:]},
            ]
        }
    ),
    "raw line breaks": lambda text: whole(text.replace(" ", "\n", 1).replace(" a", "\n\ta")),
    "trailing comma": lambda text: whole(text[:-1] + ",\n}"),
    "code fence": lambda text: whole(f"Sure! Here is the JSON:\n```json\n{text}\n```"),
    "prose with braces": lambda text: whole(f"I describe the {{region}}: {text} Is {{it}} well?"),
    "JSON as a JSON string": lambda text: whole(json.dumps(text)),
    "the same twice": lambda text: whole(f"{text}\n\n{text}"),
    "in an array": lambda text: whole(f"[{text}]"),
    "thinking in brackets": lambda text: whole(f"<seed:think>a {{draft}}</seed:think>{text}"),
    "BOM": lambda text: b"\xef\xbb\xbf" + whole("\ufeff" + text),
    "UTF-16": lambda text: whole(text).decode().encode("utf-16"),
    "blank lines first": lambda text: b"\n\n \n" + whole(text),
    "stream": stream,
    "stream without its last line": lambda text: stream(text, ""),
    "stream with line breaks of Windows": lambda text: stream(text).replace(b"\n", b"\r\n"),
    "usage missing": lambda text: json.dumps(
        {"choices": [{"message": {"content": text}}]}
    ).encode(),
    "usage null": lambda text: chat({"content": text}, usage=None),
    "usage as a list": lambda text: chat({"content": text}, usage=[1]),
    "usage as texts": lambda text: chat(
        {"content": text}, usage={"prompt_tokens": "100", "completion_tokens": 20.0}
    ),
    "error null": lambda text: chat({"content": text, "refusal": None}, error=None),
    "status inside": lambda text: chat({"content": text}, code=200, status="ok"),
}
CODINGS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without a header": ("deflate", raw_deflate),
    "two codings": ("identity, gzip", gzip.compress),
    "gzip that says nothing": ("", gzip.compress),
    "gzip that is none": ("gzip", bytes),
    "deflate that is none": ("deflate", bytes),
    "none": ("none", bytes),
    "a charset": ("utf-8", bytes),
}


@pytest.mark.parametrize("manner", MANNERS.values(), ids=MANNERS)
def test_an_answer_is_taken_wherever_it_stands(world, server, manner):
    server.fault = lambda asked: Reply(body=manner(json.dumps(honest_answer(asked))))
    result = world.run(settings_for(server.url))
    assert len(result.captions) == 4
    assert result.metrics["num_requests"] == 20, "nothing had to be repaired"


@pytest.mark.parametrize(("encoding", "pack"), CODINGS.values(), ids=CODINGS)
def test_a_reply_is_unpacked_although_that_was_not_asked_for(world, server, encoding, pack):
    server.fault = lambda asked: Reply(
        headers={"Content-Encoding": encoding},
        body=pack(completion(Reply(json.dumps(honest_answer(asked))))),
    )
    result = world.run(settings_for(server.url))
    assert len(result.captions) == 4
    assert result.metrics["num_requests"] == 20 == len(server.asked)


def test_a_small_reply_does_not_become_a_large_one(world, server):
    bomb = gzip.compress(b" " * (MAX_REPLY_BYTES + 1) * 3)
    server.fault = lambda asked: (
        Reply(headers={"Content-Encoding": "gzip"}, body=bomb)
        if asked.stage == "object" and asked.nth == 1
        else None
    )
    result = world.run(settings_for(server.url, probe_interval_s=0.05))
    assert len(result.captions) == 4
    assert server.stages()["object"] == 8


@pytest.mark.parametrize("charset", ["ISO-8859-1", "windows-1252", "utf-8"])
def test_a_reply_in_an_old_charset_is_read_as_it_says(world, server, charset):
    answer = {"caption": "A red kettle from the café, with a small dark handle."}

    def fault(asked: Asked) -> Reply | None:
        if asked.stage != "object":
            return None
        body = json.dumps({"choices": [{"message": {"content": json.dumps(answer)}}]})
        text = body.replace("\\\\u00e9", "é")
        return Reply(
            body=text.encode(charset), headers={"Content-Type": f"text/plain; charset={charset}"}
        )

    server.fault = fault
    captions = world.run(settings_for(server.url)).captions
    assert [row["object_caption"] for row in captions] == [answer["caption"]] * 4


def test_headers_of_many_kilobytes_and_cookies_are_no_matter(world, server):
    headers = {"Content-Security-Policy": "x" * 20_000, "Set-Cookie": "session=1"}
    server.fault = lambda asked: Reply(json.dumps(honest_answer(asked)), headers=headers)
    assert len(world.run(settings_for(server.url)).captions) == 4
    assert len(server.asked) == 20


def test_answers_without_token_counts_are_counted_in_the_ledger(world, server):
    server.fault = lambda asked: (
        Reply(body=chat({"content": json.dumps(honest_answer(asked))}, usage=None))
        if asked.stage == "object"
        else None
    )
    stages = world.run(settings_for(server.url)).ledger["stages"]
    assert {name: stage["uncounted"] for name, stage in stages.items() if stage["uncounted"]} == {
        "object": 4
    }


def test_answers_that_contradict_each_other_are_asked_for_again(world, server):
    def fault(asked: Asked) -> Reply | None:
        if asked.stage != "object" or len(asked.body["messages"]) > 2:
            return None
        first = json.dumps({"caption": "A red kettle with a dark handle."})
        return Reply(f"{first} or rather {first.replace('red', 'blue')}")

    server.fault = fault
    result = world.run(settings_for(server.url))
    assert len(result.captions) == 4
    assert result.ledger["stages"]["object"]["repaired"] == 4


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"x" * 3_000_000: 1}),
        json.dumps({f"name {i}": i for i in range(100_000)}),
        '{"caption": ' + "9" * 100_000 + "}",
        '{"caption": 1e999999}',
        json.dumps({"caption": "word " * 500_000}),
        json.dumps({"caption": "a" + "\u0315\u0300" * 300_000}, ensure_ascii=False),
        '{"a": [' * 50_000,
        '{"caption": "A red kettle", "caption": "A blue kettle"}',
        '{"caption": "' + "\\" * 99_999,
    ],
    ids=range(9),
)
def test_what_is_sent_back_of_an_unusable_answer_is_bounded(world, server, content):
    def fault(asked: Asked) -> Reply | None:
        is_first = asked.stage == "object" and len(asked.body["messages"]) == 2
        return Reply(content) if is_first else None

    world.rewrite_regions(world.rows[:1])
    server.fault = fault
    assert len(world.run(settings_for(server.url)).captions) == 1
    repair = next(asked for asked in server.asked if len(asked.body["messages"]) == 4)
    answer, advice = repair.body["messages"][2:]
    assert len(answer["content"]) <= 4000
    assert len(advice["content"]) <= 800
