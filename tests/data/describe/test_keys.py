"""API keys: refused if they are none, and never shown, however a server spells them."""

import base64
import html
import json
from urllib.parse import quote

import pytest
from describe_world import settings_for
from llm_server import Reply

from components.core.errors import SettingsError
from components.data.llm.client import EndpointError
from components.data.llm.transport import WITHHELD, Secrets

KEY = "sk-a/b+Cd0-Ef9/GhIjKlMnOp=="


def backslashed(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" if not char.isalnum() else char for char in text)


SPELLINGS = {
    "plain": KEY,
    "slashes escaped": KEY.replace("/", "\\/"),
    "slashes escaped twice": KEY.replace("/", "\\\\/"),
    "JSON escapes": backslashed(KEY),
    "JSON escapes of all": "".join(f"\\u{ord(char):04x}" for char in KEY),
    "hexadecimal escapes": "".join(f"\\x{ord(char):02x}" for char in KEY),
    "percent": quote(KEY, safe=""),
    "percent twice": quote(quote(KEY, safe=""), safe=""),
    "HTML": html.escape(KEY).replace("/", "&#47;").replace("-", "&#x2d;"),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 of the header": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "hexadecimal": KEY.encode().hex(),
    "upper case": KEY.upper(),
    "a line break inside": KEY[:9] + "\n" + KEY[9:],
    "blanks inside": " ".join(KEY),
    "two pieces": f"it begins with {KEY[:13]} and ends with {KEY[13:]}",
    "three pieces": f"{KEY[:9]} then {KEY[9:18]} then {KEY[18:]}",
    "the end is masked": KEY[:20] + "*******",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_key_is_not_quoted_in_any_spelling(spelling):
    shown = Secrets([KEY]).mask(f"bad request: Authorization {spelling} is wrong")
    assert shown in (WITHHELD, "bad request: Authorization (the key) is wrong")


@pytest.mark.parametrize(
    "text",
    ["", "status 401: no", "sk-", "A red kettle stands on the table, next to a lantern. " * 99],
)
def test_a_text_without_a_key_is_shown(text):
    assert Secrets([KEY, "EMPTY", ""]).mask(text) == text


def test_a_word_that_serves_as_a_key_costs_no_caption():
    words = Secrets(["EMPTY", "token-abc123", "local-development-key"])
    assert not words.are_in("An empty glass shows the development of a token abc.")
    assert Secrets([KEY]).are_in(f"The sign says {KEY.upper()}.")


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("place", ["refusal", "verdict"])
def test_a_key_that_a_server_says_back_is_written_nowhere(
    world, server, monkeypatch, spelling, place
):
    monkeypatch.setenv("SOME_KEY", KEY)
    verdict = {"consistent": False, "only_visible": True, "valid_english": True}
    replies = {
        "refusal": Reply(status=400, body=json.dumps({"error": {"message": spelling}}).encode()),
        "verdict": Reply(json.dumps({**verdict, "reason": f"{spelling}, says the label"})),
    }
    server.fault = lambda asked: replies[place] if asked.stage == "verify" else None
    keys = {"api_key_env": "SOME_KEY"}
    settings = settings_for(
        server.url, verify=keys, max_attempts=1, probe_interval_s=0.02, give_up_after_s=6.0
    )
    world.rewrite_regions(world.rows[:1])
    world.run(settings)
    written = b"".join(p.read_bytes() for p in world.folder.rglob("*.*") if p.is_file())
    for piece in (KEY, KEY[:9], KEY[9:18], KEY[13:], spelling):
        assert piece.encode() not in written
        assert json.dumps(piece)[1:-1].encode() not in written


def test_an_answer_that_holds_the_key_is_not_kept(world, server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    caption = json.dumps({"caption": f"A red sign that says {KEY} in white letters."})
    server.fault = lambda asked: (
        Reply(caption.replace("/", "\\/")) if asked.stage == "object" and asked.nth == 1 else None
    )
    keys = {"api_key_env": "SOME_KEY"}
    result = world.run(settings_for(server.url, object=keys, probe_interval_s=0.05))
    assert len(result.captions) == 4
    assert server.stages()["object"] == 8


def test_the_error_that_stops_the_step_shows_no_key(world, server, monkeypatch, caplog):
    monkeypatch.setenv("SOME_KEY", KEY)
    said = f'{{"error": "wrong: {KEY}"}}'.replace("/", "\\/").encode()
    server.fault = lambda _: Reply(status=401, body=said)
    keys = {"api_key_env": "SOME_KEY"}
    with pytest.raises(EndpointError) as caught:
        world.run(settings_for(server.url, object=keys))
    assert "GhIj" not in str(caught.value) + caplog.text
    assert "status 401" in str(caught.value)


@pytest.mark.parametrize(
    "key", ["sk-abc\n", "sk-abc\r\nX-Evil: 1", " sk-abc", "sk abc", "schlüssel", "sk\t", "sk\x7f"]
)
def test_a_key_that_no_header_can_hold_is_told_without_showing_it(world, server, monkeypatch, key):
    monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(SettingsError, match=r"describe\.object\.api_key_env.*SOME_KEY") as caught:
        world.run(settings_for(server.url, object={"api_key_env": "SOME_KEY"}))
    assert key.strip() not in str(caught.value)
    assert not server.asked
