"""Passwords and tokens inside addresses: `https://ada:secret@git.example`, `…?private_token=…`.

Settings end up in receipts, compiled pipelines and MLflow, and messages in logs: neither holds any.
What a source's rows hold, such as `?key=…` in a picture's URL, is data and stays as it is there.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from urllib.parse import unquote, unquote_plus

HIDDEN = "***"
MAX_VALUES, MAX_DEPTH = 100_000, 64  # of settings; YAML's aliases make a billion of a few
MAX_ROUNDS = 3  # of percent-encoding: an address inside the query of another
# An address up to a blank or the next address. Browsers take a backslash for a slash.
ADDRESS = re.compile(
    r"(?P<start>https?:[/\\]+|\b[a-z][a-z0-9+.-]{0,30}:[/\\]{2}|(?<![^\s\"'=,(])//)"
    r"(?P<rest>(?:(?![a-z][a-z0-9+.-]{0,30}://)\S)*)",
    re.IGNORECASE,
)
HOST = re.compile(r"[\w-]+(\.[\w-]+)+(:\d+)?([/?#\\]|$)")
PORT = re.compile(r"[1-9]\d{0,4}|")
# A field of a query, a fragment or of parameters after a semicolon. What separates fields belongs
# to the value where no name follows it.
FIELD = re.compile(
    r"(?P<name>[?&;#][^\s=&;?#\"'<>]{1,100}=)"
    r"(?P<value>(?:[^\s&;?#\"'<>]|[&;?#](?![^\s=&;?#\"'<>]*=)(?!\s|$))+)"
)
# The same outside of addresses, where only a plain name counts: `password=…` of a database, a
# variable that is set, a field of JSON or of a dictionary, a header.
SETTING = re.compile(
    r"(?P<name>(?<![\w?&;#.-])(?P<quote>[\"']?)[\w.-]{1,100}(?P=quote)\s?[=:]\s?)"
    r"(?P<value>\"[^\"]+\"|'[^']+'|[^\s&;,\"'<>(){}\[\]]+)"
)
HEADER = re.compile(r"\b((?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
# Tokens that say of themselves what they are: GitHub, GitLab, Hugging Face, Slack, OpenAI, Google,
# JSON web tokens.
TOKEN = re.compile(
    r"(?<![\w.-])(gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|sk-|AIza|eyJ)[\w.-]{20,}"
)
SECRET_NAMES = {
    *("token", "sig", "signature", "password", "passwd", "pwd", "pw", "passphrase", "jwt"),
    *("secret", "apikey", "credential", "credentials", "authorization", "assertion", "hmac", "sas"),
    *("awsaccesskeyid", "googleaccessid", "appkey", "authkey", "sessionid", "bearer"),
}
SECRET_ENDINGS = (
    *("token", "password", "passwd", "secret", "apikey", "accesskey", "secretkey", "privatekey"),
    *("signature", "credential", "passphrase", "subscriptionkey", "sessionkey", "sessionid"),
    *("accountkey", "masterkey", "encryptionkey"),
)
NO_SECRET = re.compile(  # places in a list, and the special tokens of language models
    r"(next|page|continuation|cursor|sync|csrf|eos|bos|pad|unk|mask|sep|cls)(page)?token"
)
SECRET_PERHAPS = {"key", "auth", "pass", "code", "session", "sid", "ticket", "otp", "pat"}
TRIVIAL = re.compile(
    r"none|null|basic|digest|oauth2?|iam|anonymous|required|optional|auto|true|false|yes|no|on|off"
    r"|\d{1,4}|\*+|x{3,}|\.{3}|…|\$\{?\w+\}?|\$\(\w+\)|\{\{.*|\{\w*\}|<\w*>|%\w|%\(\w+\)s",
    re.IGNORECASE,
)
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")  # its name, under which a secret is given
LANGUAGE = re.compile(r"[a-z]{2,3}([-_][a-z0-9]{2,8})*", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """A text whose addresses show neither user nor password, and no token in their queries."""
    hidden = _hide(text)
    if "%" not in hidden:
        return hidden
    return re.sub(r"\S*%\S*", lambda word: _hide_encoded(word[0]), hidden)


def holds_credentials(text: str) -> bool:
    """Whether an address in a text holds a user, a password or a token."""
    return without_credentials(text) != text


def places_of_credentials(value: object, name: str) -> Iterator[str]:
    """The dotted names of the texts in nested settings that hold credentials.

    Raises:
        ValueError: the settings hold more values, or deeper ones, than any settings.
    """
    for place, key, text in texts_of(value, name):
        if _is_secret_setting(_plain(key), text) or holds_credentials(text):
            yield without_credentials(place)


def texts_of(value: object, name: str) -> Iterator[tuple[str, str, str]]:
    """Every text in nested settings with its dotted name and the key right before it.

    Raises:
        ValueError: the settings hold more values, or deeper ones, than any settings.
    """
    num_values = 0
    waiting: list[tuple[str, str, object, int]] = [(name, "", value, 0)]
    while waiting:
        place, key, item, depth = waiting.pop()
        num_values += 1
        if num_values > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(
                f"{without_credentials(name)}: settings of more than {MAX_VALUES} values, or "
                f"nested more than {MAX_DEPTH} deep, are none"
            )
        if isinstance(item, str | bytes | PurePath):
            yield (
                place,
                key,
                item.decode(errors="replace") if isinstance(item, bytes) else str(item),
            )
        elif isinstance(item, Mapping):
            inner = [(f"{place}.{key}", str(key), value, depth + 1) for key, value in item.items()]
            # A key that is an address itself is recognised by where it stands.
            inner += [(place, "", key, depth + 1) for key in item if isinstance(key, str)]
            waiting += reversed(inner)
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += [(place, key, value, depth + 1) for value in item]


def _hide(text: str) -> str:
    text = ADDRESS.sub(
        lambda found: found["start"] + _without_user(found["start"], found["rest"]), text
    )
    text = FIELD.sub(_without_secret, text)
    text = SETTING.sub(_without_secret_setting, text)
    text = HEADER.sub(_without_header, text)
    return TOKEN.sub(_without_token, text)


def _without_token(found: re.Match[str]) -> str:
    return HIDDEN if re.search(r"\d", found[0]) else found[0]


def _hide_encoded(word: str) -> str:
    """A word as it is, or decoded and hidden if its decoded form shows what it must not."""
    decoded = word
    for _ in range(MAX_ROUNDS):
        before, decoded = decoded, unquote(decoded)
        if decoded == before:
            return word
        hidden = " ".join(map(_hide, decoded.split(" ")))
        if hidden != decoded:
            return hidden
    return word


def _without_user(start: str, rest: str) -> str:
    """What follows `scheme://`, its user and password hidden."""
    scheme = start.rstrip("/\\:").lower()
    if scheme == "file" or rest[:1] in ("/", "\\", "["):  # no host, or one by its number
        return rest
    first = re.split(r"[/\\?#]", rest, maxsplit=1)[0]
    user, at, _ = first.rpartition("@")
    if at and rest[len(user) + 1 :].startswith("sha256:"):  # an image by its digest
        return rest
    # Of http also a name alone: it may be a token. `ssh://git@host` is no secret.
    if at and user and (scheme.rpartition("+")[2] in ("http", "https") or ":" in unquote(user)):
        return rest if user == HIDDEN else f"{HIDDEN}{rest[len(user) :]}"
    if not at and _is_cut_password(first, rest):
        return f"{HIDDEN}@{rest.rpartition('@')[2]}"
    return rest


def _is_cut_password(first: str, rest: str) -> bool:
    """Whether a slash, question mark or hash stands inside a password: `ada:se/cret@host`."""
    _, at, after = rest.rpartition("@")
    name, colon, port = first.partition(":")
    is_no_host = "%" in name or ("." not in name and name != "localhost")
    is_host_after = is_no_host and bool(HOST.match(after))
    if not at or not colon:
        return bool(at) and is_host_after and len(name) >= 16
    return is_host_after if PORT.fullmatch(port) else True


def _without_secret(field: re.Match[str]) -> str:
    name, value = field["name"], field["value"]
    return f"{name}{HIDDEN}" if _is_secret(_plain(name), unquote(value)) else field[0]


def _without_secret_setting(setting: re.Match[str]) -> str:
    value = setting["value"].strip("\"'")
    is_json = bool(setting["quote"])
    # `token: x` alone is a sentence of a message; `"token": "x"` and `token=x` are no sentences.
    is_assigned = "=" in setting["name"] or (is_json and setting["value"][0] in "\"'")
    if is_assigned and _is_secret_setting(_plain(setting["name"]), value):
        return setting[0].replace(value, HIDDEN)
    return setting[0]


def _without_header(header: re.Match[str]) -> str:
    value = header[0][len(header[1]) :]
    return header[1] + HIDDEN if re.search(r"\d", value) else header[0]


def _plain(name: str) -> str:
    """A field's name however it is written: `X-Amz-Signature`, `private%5Ftoken`, `token[0]`."""
    letters = re.sub(r"[^a-z0-9]", "", unquote_plus(unquote_plus(name)).casefold())
    return letters.rstrip("0123456789")


def _is_secret_name(plain: str) -> bool:
    is_secret = plain in SECRET_NAMES or plain.endswith(SECRET_ENDINGS)
    return is_secret and not NO_SECRET.fullmatch(plain)


def _is_secret_setting(plain: str, text: str) -> bool:
    is_told = len(text) > 3 and not TRIVIAL.fullmatch(text) and not VARIABLE.fullmatch(text)
    return is_told and _is_secret_name(plain)


def _is_secret(plain: str, value: str) -> bool:
    if TRIVIAL.fullmatch(value):
        return False
    if _is_secret_name(plain):
        return True
    if plain not in SECRET_PERHAPS or "/" in value or len(value) < 4:
        return False
    if plain != "code":
        return True
    is_mixed = bool(re.search(r"\d", value) and re.search(r"[A-Za-z]", value))
    return not LANGUAGE.fullmatch(value) and (is_mixed or len(value) >= 16)
