"""What the documents print can be typed: whole commands, options and settings that exist."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from components.cli import StepCommand, cli
from components.core.settings import parse_assignments, parse_settings
from components.core.step import load_step
from components.orchestration.kubeflow.cli import parse_overrides
from pixclip.training.recipes import ALL_RECIPES

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command in the console blocks, as a shell joins and splits its lines."""
    for block in BLOCK.findall(text):
        begun = ""
        for line in block.splitlines():
            assert begun or line.startswith("$ "), f"belongs to no command: {line}"
            begun += line.removeprefix("$ ") if not begun else f"\n{line}"
            if begun.endswith("\\"):
                begun = begun[:-1]
                continue
            try:
                words = shlex.split(begun, comments=True)
            except ValueError:  # an open quote goes on in the next line
                continue
            begun = ""
            yield words


def ours() -> Iterator[tuple[str, list[str]]]:
    for path in DOCUMENTS:
        for words in commands(path.read_text()):
            if Path(words[0]).name == "pixclip":
                yield path.name, words[1:]


def find_command(words: list[str]) -> tuple[click.Command, list[str]]:
    command: click.Command = cli
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(click.Context(command), name)
        assert found, f"no command {name}"
        command = found
    return command, words


@pytest.mark.parametrize(("document", "words"), list(ours()), ids=lambda part: " ".join(part)[:60])
def test_every_command_of_the_documents_has_options_and_settings_that_exist(document, words):
    command, rest = find_command(words)
    options = {name for option in command.params for name in option.opts}
    assert {word for word in rest if word.startswith("--")} <= options
    texts = [b for a, b in pairwise(rest) if a == "--set"]
    if isinstance(command, StepCommand):
        sections = {command.step.name: parse_assignments(texts, command.step.settings_type)}
    else:
        sections = parse_overrides(texts)
    for name, settings in sections.items():
        # The pipeline names the stages itself, by the recipe.
        stage = (
            {"stage": ALL_RECIPES[settings["recipe"]].stages[0].name}
            if "recipe" in settings
            else {}
        )
        parse_settings(
            load_step(name), (stage if name in ("train", "train_parts") else {}) | settings
        )


def test_every_document_is_linked_and_every_link_leads_somewhere():
    linked = set()
    for path in DOCUMENTS:
        for target in LINK.findall(path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
            linked.add((path.parent / target).resolve())
    decisions = ROOT / "docs" / "decisions"
    unlinked = {path for path in DOCUMENTS if decisions not in path.parents} - linked
    assert unlinked <= {ROOT / "README.md"}
