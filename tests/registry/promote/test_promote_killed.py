"""A promotion that was killed: the next run tells what was decided, and decides it once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from components.core import run as run_module
from components.core.errors import InputError
from components.core.run import run_step
from components.core.step import load_step
from components.registry import promote as promote_step
from components.registry.models import Reference, Registry
from components.registry.promotions import promotion_entry
from tests.model_registry import World


class Killed(BaseException):
    """Nothing runs after it, as after a kill."""


def promote(world: World, registration: Path) -> dict[str, Any]:
    folder = registration.with_name("promotion")
    run_step(
        load_step("promote"), {"registration": registration}, {"promotion": folder}, world.settings
    )
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def die(*_: object, **__: object) -> None:
    raise Killed


def die_after(function: Callable[..., Any]) -> Callable[..., None]:
    def act(*arguments: Any, **named: Any) -> None:
        function(*arguments, **named)
        raise Killed

    return act


def die_as_champion(self: Registry, reference: Reference, alias: str) -> None:
    set_alias(self, reference, alias)
    if alias == "champion":
        raise Killed


set_alias = Registry.set_alias
DEATHS: dict[str, tuple[object, str, Callable[..., None]]] = {
    "with the alias": (Registry, "set_alias", die_as_champion),
    "before the entry is closed": (MlflowClient, "set_terminated", die),
    "with the entry": (MlflowClient, "set_terminated", die_after(MlflowClient.set_terminated)),
    "before the report": (promote_step, "write_report", die),
    "with the report": (promote_step, "write_report", die_after(promote_step.write_report)),
    "before it is published": (run_module, "publish", die),
}


@pytest.mark.parametrize("death", DEATHS)
def test_the_rerun_of_a_killed_promotion_tells_what_was_decided(
    world: World, registry: Registry, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    promote(world, world.candidate("a", num_right=20))
    registration = world.candidate("b", num_right=35)
    with monkeypatch.context() as patch:
        patch.setattr(*DEATHS[death])
        with pytest.raises(Killed):
            promote(world, registration)
    report = promote(world, registration)
    assert (report["outcome"], report["candidate"]) == ("promoted", "2")
    assert (report["champion_before"], report["champion_after"]) == ("1", "2")
    assert report["reason"] == "The policy was met."
    names = [check["name"] for check in report["checks"]]
    assert "scene_accuracy: better than the champion" in names
    assert len(names) == 8
    assert all(check["passed"] for check in report["checks"])
    champion, previous = (registry.get(Reference("pixclip", name)).number
                          for name in ("champion", "previous"))  # fmt: skip
    assert (champion, previous) == ("2", "1")
    assert promote(world, registration)["outcome"] == "already_champion"


def test_the_rerun_tells_it_also_after_somebody_else_repaired_the_entry(
    world: World, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration = world.candidate("a", num_right=35)
    with monkeypatch.context() as patch:
        patch.setattr(*DEATHS["with the alias"])
        with pytest.raises(Killed):
            promote(world, registration)
    with promotion_entry(registry, "pixclip"):
        pass
    report = promote(world, registration)
    assert (report["outcome"], report["champion_before"]) == ("promoted", "")
    assert len(report["checks"]) == 4


def test_a_decision_that_others_have_overtaken_is_made_anew(
    world: World, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration = world.candidate("a", num_right=20)
    with monkeypatch.context() as patch:
        patch.setattr(*DEATHS["before the report"])
        with pytest.raises(Killed):
            promote(world, registration)
    promote(world, world.candidate("b", num_right=35))
    assert promote(world, registration)["outcome"] == "kept"
    assert registry.get(Reference("pixclip", "champion")).number == "2"


def test_a_champion_s_report_says_why_it_became_one(world: World) -> None:
    registration = world.candidate("a", num_right=35)
    promote(world, registration)
    report = promote(world, registration)
    assert report["outcome"] == "already_champion"
    assert report["reason"].endswith("for this reason: The policy was met.")
    assert len(report["checks"]) == 4


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"model": "pixclip"}',
        b"[" * 100_000,
        b'{"model": "pixclip", "version": ' + b"9" * 5000 + b"}",
        b'{"model": \x00}',
    ],
)
def test_a_damaged_registration_is_named(world: World, tmp_path: Path, text: bytes) -> None:
    registration = tmp_path / "registration"
    registration.mkdir()
    (registration / "registration.json").write_bytes(text)
    with pytest.raises(InputError, match=r"registration\.json says no model and version"):
        promote(world, registration)
