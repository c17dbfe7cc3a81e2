"""No password and no token leaves by a setting, a message or a log, however it is written."""

import logging
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.credentials import (
    holds_credentials,
    places_of_credentials,
    without_credentials,
)
from components.core.errors import InputError
from components.core.process import quieten_libraries

LONG_PIECES = ["//", "https://a:", "?token=", "%25", "&;#", "@", "a:/", "?", "sk-", "?a", "a="]
LONG_PIECES += ["basic ", "'a':"]
PASSWORDS = [
    "hunter2!Zq",
    "hun/ter2!Zq",
    "hun@ter2!Zq",
    "h%2Fun%40ter2!Zq",
    "hun?ter2!Zq",
]


@pytest.mark.parametrize("scheme", ["https", "HTTP", "postgresql+psycopg2", "redis", "s3", "ftp"])
@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("user", ["ada", "", "ada%40x.org", "A-b.c"])
def test_a_password_of_any_form_is_hidden(scheme, password, user):
    address = f"{scheme}://{user}:{password}@git.example.org:443/x?y=1"
    for text in (address, f"cannot reach '{address}': refused", f"[{address}]"):
        hidden = without_credentials(text)
        assert f"{scheme}://***@git.example.org:443/x?y=1" in hidden
        assert without_credentials(hidden) == hidden
        assert holds_credentials(text)


@pytest.mark.parametrize(
    "field",
    [
        *("private_token", "sig", "api_key", "access_token", "X-Amz-Signature", "X-Amz-Credential"),
        *("token", "key", "password", "secret", "auth", "jwt", "code", "PRIVATE_TOKEN", "Api-Key"),
        *("X-Amz-Security-Token", "X-Goog-Signature", "client_secret", "refresh_token", "passwd"),
        *("oauth_token", "sessionToken", "AWSAccessKeyId", "Signature", "hub.token", "token[0]"),
        *("api%5Fkey", "%74oken", "access%255Ftoken", "subscription-key", "pwd", "my_api_key"),
    ],
)
@pytest.mark.parametrize(
    "place", ["?{}", "?a=1&{}", "#{}", "#a=1&{}", "?a=1;{}&b=2", "?a=1&amp;{}", "/x;{}", "?{}#end"]
)
def test_a_token_in_a_query_is_hidden(field, place):
    text = "GET https://host.example/x" + place.format(f"{field}=s3cr3t.Zq/9") + " failed"
    hidden = without_credentials(text)
    assert "s3cr3t" not in hidden or ("/" in "s3cr3t.Zq/9" and field in ("key", "auth", "code"))
    safe = text.replace("s3cr3t.Zq/9", "s3cr3tZq9")
    assert "s3cr3t" not in without_credentials(safe)
    assert without_credentials(without_credentials(safe)) == without_credentials(safe)


@pytest.mark.parametrize(
    "address",
    [
        "https://acc.blob.core.windows.net/c?sv=2022-11-02&se=2030&sr=c&sig=ab%2Fcd%3D",
        "https://ada:12/hunter2@git.example/x",
        "//ada:hunter2@git.example/x",
        "https:\\\\ada:hunter2@git.example\\x",
        "https:/ada:hunter2@git.example/x",
        "https://ada%3Ahunter2@git.example",
        "ssh://ada%3Ahunter2@git.example",
        "https://ghp_0123456789abcdefghij/x@github.com/y",
        "https://proxy.example/?url=https%3A%2F%2Fada%3Ahunter2%40git.example",
        "https://proxy.example/?url=https%253A%252F%252Fh%252Fx%253Ftoken%253Dhunter2",
        "ghp_0123456789abcdefghij0123",
        "hf_abcdefghij0123456789abcd",
        "https://host/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "postgresql://db/x?user=ada&password=hunter2",
        "sqlite:///runs/x.db?password=hunter2",
        "https://host/x?password=ab&cd;ef",
        "/api/v4/projects?private_token=hunter2",
        "dvc://x?secret=hunter2#main",
        "git+https://hunter2@git.example/x.git",
        "https://host/x;jsessionid=hunter2",
        "https://host/x?auth[token]=hunter2",
        "host=db user=ada password=hunter2 dbname=x",
        "MLFLOW_TRACKING_PASSWORD=hunter2",
        "DefaultEndpointsProtocol=https;AccountName=ada;AccountKey=hunter2==",
        "https://host/x?pat=hunter2",
        "aws_secret_access_key = hunter2",
        '{"password": "hunter2"}',
        "{'api_key': 'hunter2'}",
        "Authorization: Bearer hunter2.abc-def",
        "headers {'Authorization': 'Basic aHVudGVyMg=='}",
    ],
)
def test_other_spellings_are_found_too(address):
    assert holds_credentials(address)
    told = str(InputError(f"cannot reach {address} now"))
    assert "hunter2" not in told
    assert told.endswith(" now")


@pytest.mark.parametrize(
    "address",
    [
        "https://host/x.jpg?v=2&width=300&height=200&format=webp",
        "https://host/x?lang=de&code=en-US&code=zh-Hant-TW&country_code=DE",
        "https://host/x?code=404&key=1&token=none&auth=basic",
        "https://host/x?page_token=abcdef1234&nextPageToken=abcdef1234&monkey=banana",
        "https://host/x?tokens=17&num_tokens=512&max_tokens=512&keyword=cat&author=ada",
        "https://host/x?token=${GIT_TOKEN}&password=***&api_key=<key>&secret={secret}",
        "http://mlflow:5000/users/@ada",
        "http://localhost:8000/v1/@x",
        "http://[::1]:8000/a@b",
        "https://medium.com/@ada/a-post",
        "https://host.example:8443/users/ada@example.org",
        "https://host/mail?to=ada@example.org",
        "ssh://git@host/x",
        "git@host.example:x/y.git",
        "s3://bucket/prefix/a@c",
        "http://h/@x",
        "models:/pixclip@champion",
        "sqlite:////tmp/a:b@c/mlflow.db",
        "file:///data/a:b@c",
        "docker://example.test/pixclip-data:dev@sha256:0123456789abcdef",
        "example.test/pixclip-data:dev@sha256:0123456789abcdef",
        "--set takes key=value, got 'token'",
        "train.changes: {optimizer.rest_lr: 1.0e-6}; pass=1",
        "a caption; the code=hidden behind the # sign",
        "100% of the rows",
        "/data/100%25/x",
        "sk-learn and hf_hub",
        "the special token: pad, and a token=<pad>",
        "a basic understanding, the bearer of a torch",
        "pad_token=<|endoftext|>, eos_token='</s>', max_tokens=512",
        "{'api_key_env': 'OPENAI_API_KEY', 'tokens': 'many'}",
        "password: see the manual",
        "export MLFLOW_TRACKING_TOKEN=$TOKEN",
        "",
    ],
)
def test_what_is_no_secret_stays_as_it_is(address):
    assert without_credentials(address) == address
    assert not list(places_of_credentials({"address": address}, "x"))


WORDS = st.text("abcdefgHIJKL0123456789-_.~", min_size=6, max_size=30).map(lambda word: f"Z9{word}")


@given(
    secret=WORDS,
    rounds=st.integers(0, 2),
    before=st.sampled_from(["", "see ", "'", "[1] (", "a=b, "]),
    form=st.sampled_from(
        [
            "https://u:{}@h.example/p",
            "https://{}@h.example/p",
            "amqp://u:{}/x@h.example/p",
            "https://h.example/p?token={}",
            "https://h.example/p?a=b&Signature={}&c=d",
            "https://h.example/p#id_token={}",
        ]
    ),
)
def test_no_secret_survives_any_form_of_address(secret, rounds, before, form):
    address = form.format(secret)
    for _ in range(rounds):
        address = quote(address, safe="")
    hidden = without_credentials(f"{before}{address} end")
    assert secret not in hidden
    assert hidden.endswith(" end")
    assert without_credentials(hidden) == hidden


@given(st.text())
def test_any_text_can_be_asked(text):
    hidden = without_credentials(text)
    assert without_credentials(hidden) == hidden or "%" in text


@pytest.mark.parametrize("piece", LONG_PIECES)
def test_a_long_text_takes_no_long_time(piece):
    without_credentials(piece * 30_000)


def test_places_are_told_without_their_values_also_those_of_keys():
    settings = {
        "a": {"b": ["x", "https://u:hunter2@h"], "https://u:hunter2@h": 1},
        "c": ("https://h?sig=hunter22",),
        "environment": {"MLFLOW_TRACKING_PASSWORD": "hunter2", "MLFLOW_TRACKING_URI": "http://m"},
        "max_tokens": 512,
        "eos_token": "</s>",
        "api_key_env": "OPENAI_API_KEY",
    }
    found = list(places_of_credentials(settings, "step"))
    assert found == ["step.a.b", "step.a", "step.c", "step.environment.MLFLOW_TRACKING_PASSWORD"]


def test_settings_that_are_a_bomb_end_soon():
    bomb: list = ["x"]
    for _ in range(60):
        bomb = [bomb, bomb]
    ring: dict = {}
    ring["again"] = ring
    for settings in (bomb, ring):
        with pytest.raises(ValueError, match="are none"):
            list(places_of_credentials(settings, "step"))


def test_a_line_of_the_log_tells_no_token_of_a_row_s_address(caplog):
    usual = logging.getLogRecordFactory()
    try:
        quieten_libraries()
        logging.getLogger("x").warning("%s gives 404", "https://host/x.jpg?w=3&key=AbC123")
    finally:
        logging.setLogRecordFactory(usual)
    assert caplog.messages == ["https://host/x.jpg?w=3&key=*** gives 404"]
