"""An evaluation that is damaged or written by hand ends in an error that names it."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import InputError
from components.registry.register import RegisterSettings, evaluation_of, lineage_tags, render_card
from tests.model_registry import some_right, write_checkpoint, write_evaluation
from tests.mutations import mutated

SETTINGS = RegisterSettings(git_commit="abc", model="pixclip")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_checkpoint(folder / "checkpoint", seed=1)
    write_evaluation(folder / "evaluation", folder / "checkpoint", some_right(20))
    return folder


def read(made: Path, evaluation: Path) -> str:
    """All that `register` does with an evaluation before it opens MLflow."""
    measured = evaluation_of(made / "checkpoint", evaluation)
    measured.flat_metrics()
    tags = lineage_tags(made / "checkpoint", measured, SETTINGS)
    return render_card(tags, measured, SETTINGS)


def change(made: Path, folder: Path, act: Callable[[dict[str, Any]], object]) -> Path:
    shutil.copytree(made / "evaluation", folder)
    path = folder / "evaluation.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    act(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("place", "act"),
    [
        ("metrics.all", lambda content: content["metrics"].update(all=None)),
        ("metrics.all.x", lambda content: content["metrics"]["all"].update(x="0.9")),
        ("metrics.all.x", lambda content: content["metrics"]["all"].update(x=float("nan"))),
        ("metrics.all.x", lambda content: content["metrics"]["all"].update(x=[1])),
        ("metrics", lambda content: content.update(metrics=[])),
        ("num_samples", lambda content: content.update(num_samples=7)),
        ("num_samples.all.x", lambda content: content["num_samples"]["all"].update(x="many")),
        ("baselines.b", lambda content: content["baselines"].update(b=3)),
        ("data.num_regions", lambda content: content["data"].update(num_regions="120")),
        ("data.dataset", lambda content: content["data"].update(dataset=None)),
        ("data.version", lambda content: content["data"].update(version="v1")),
        ("protocol_digest", lambda content: content.update(protocol_digest={})),
    ],
)
def test_a_part_of_another_kind_is_named_with_its_place(
    made: Path, tmp_path: Path, place: str, act: Callable[[dict[str, Any]], object]
) -> None:
    evaluation = change(made, tmp_path / "evaluation", act)
    with pytest.raises(InputError, match=rf"evaluation\.json is no evaluation: {place}") as caught:
        read(made, evaluation)
    assert str(caught.value).endswith("evaluate again")


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b"null", b"[" * 100_000, b'{"data": 1}'])
def test_what_is_no_evaluation_is_named(made: Path, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "evaluation.json").write_bytes(text)
    with pytest.raises(InputError, match=r"evaluation\.json is no evaluation"):
        read(made, tmp_path)


def test_no_damage_ends_in_another_error(made: Path, tmp_path: Path) -> None:
    whole = (made / "evaluation" / "evaluation.json").read_bytes()
    refused = 0
    for seed in range(400):
        damaged = mutated(whole, random.Random(seed))
        (tmp_path / "evaluation.json").write_bytes(damaged)
        try:
            read(made, tmp_path)
        except InputError:
            refused += 1
    assert refused > 200
