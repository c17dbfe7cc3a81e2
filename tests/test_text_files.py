"""Text files are UTF-8, whatever the locale of the machine says."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = (
    "components", "data_contracts", "model", "scripts", "demo", "benchmarks", "images", "dags",
)  # fmt: skip
# Functions that open text, and the position of `mode` and `encoding` among their arguments.
READERS = {"read_text": 0, "write_text": 1}
# Of modules and classes whose `open` takes no encoding.
OTHER_OPENERS = {
    "Image", "tarfile", "os", "zipfile", "archive", "store", "fsspec", "TextEncoder",
    "TextEmbeddings", "Whitening", "_transport", "annotations",
}  # fmt: skip


def calls_without_encoding(source: str) -> Iterator[str]:
    """Calls that leave the encoding of a text to the locale."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and _lacks_encoding(node):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def _lacks_encoding(call: ast.Call) -> bool:
    keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if "encoding" in keywords or None in keywords:
        return False
    if "True" in (keywords.get("text"), keywords.get("universal_newlines")):
        return True
    owner, _, name = ast.unparse(call.func).rpartition(".")
    if name in READERS:
        return len(call.args) <= READERS[name]
    if name == "fdopen" or (name == "open" and owner.rpartition(".")[2] not in OTHER_OPENERS):
        return _opens_text(owner, [*map(ast.unparse, call.args), keywords.get("mode", "")])
    return False


def _opens_text(owner: str, arguments: list[str]) -> bool:
    modes = [text for text in arguments if re.fullmatch("'[rwxabt+]+'", text)]
    if modes:
        return "b" not in modes[-1]
    return not owner or arguments == [""]  # `open(path)` and `path.open()` read text


def test_no_text_is_read_or_written_in_the_encoding_of_the_locale():
    found = [
        f"{path.relative_to(ROOT)}, {call}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for call in calls_without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("path.open()", True),
        ("path.open('a')", True),
        ("open(path)", True),
        ("open(path, 'w')", True),
        ("os.fdopen(number, 'w')", True),
        ("subprocess.run(command, text=True)", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text, encoding='utf-8')", False),
        ("path.open('rb')", False),
        ("open(path, mode='rb')", False),
        ("os.open(path, os.O_RDONLY)", False),
        ("Image.open(path)", False),
        ("subprocess.run(command, encoding='utf-8')", False),
    ],
)
def test_the_search_knows_text_from_bytes(source, is_found):
    assert bool(list(calls_without_encoding(source))) == is_found
