"""Going back to an earlier champion."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.core import run as run_module
from components.core.errors import InputError
from components.core.run import run_step
from components.core.step import load_step
from components.registry import rollback as rollback_step
from components.registry.models import ROLLED_BACK_TAG, Reference, Registry
from components.registry.promotions import PROMOTE, promotion_entry
from tests.model_registry import World

FIRST, SECOND, THIRD = (Reference("pixclip", number) for number in "123")


def champions(registry: Registry) -> tuple[str, str]:
    """Numbers of champion and previous; empty for none."""
    found = [registry.find(Reference("pixclip", alias)) for alias in ("champion", "previous")]
    champion, previous = (version.number if version else "" for version in found)
    return champion, previous


def make_champions(world: World, registry: Registry, names: str) -> None:
    """Register checkpoints and make each the champion in turn."""
    for number, name in enumerate(names, start=1):
        world.candidate(name, num_right=30)
        with promotion_entry(registry, "pixclip") as entry:
            entry.move(PROMOTE, registry.get(Reference("pixclip", str(number))), "a test")


def rollback(world: World, **settings: object) -> dict[str, object]:
    folder: Path = world.folder / "rollback"
    run_step(load_step("rollback"), {}, {"promotion": folder}, {**world.settings, **settings})
    report: dict[str, object] = json.loads((folder / "report.json").read_text())
    return report


def test_the_previous_champion_comes_back_and_the_log_says_why(
    world: World, registry: Registry
) -> None:
    make_champions(world, registry, "ab")
    report = rollback(world, reason="blind to cats")
    assert (report["champion_before"], report["champion_after"]) == ("2", "1")
    assert champions(registry) == ("1", "")
    assert registry.get(SECOND).tags[ROLLED_BACK_TAG] == "blind to cats"
    log = registry.client.get_experiment_by_name("promotions")
    newest = registry.client.search_runs([log.experiment_id])[0]
    facts = {"action": "rollback", "from": "2", "to": "1", "reason": "blind to cats"}
    assert facts.items() <= newest.data.params.items()
    assert newest.data.tags["mlflow.user"]


def test_rolling_back_twice_refuses_instead_of_bringing_the_bad_version_back(
    world: World, registry: Registry
) -> None:
    make_champions(world, registry, "abc")
    rollback(world, reason="blind to cats")
    told = "no previous champion.*version 2 came back in the place of 3: blind to cats"
    with pytest.raises(InputError, match=told):
        rollback(world)
    assert champions(registry) == ("2", "")
    assert rollback(world, version="1")["champion_after"] == "1"
    assert champions(registry) == ("1", "")


def test_a_rollback_that_died_in_the_middle_is_done_when_it_is_tried_again(
    world: World, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing runs after it, as after a kill."""

    def die(*_: object) -> None:
        raise Killed

    make_champions(world, registry, "ab")
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "delete_alias", die)
        with pytest.raises(Killed):
            rollback(world, reason="blind to cats")
    assert champions(registry) == ("1", "1")
    report = rollback(world, reason="blind to cats")
    assert (report["champion_before"], report["champion_after"]) == ("2", "1")
    assert champions(registry) == ("1", "")
    assert registry.get(SECOND).tags[ROLLED_BACK_TAG] == "blind to cats"
    with pytest.raises(InputError, match="no previous champion"):
        rollback(world)


class Killed(BaseException):
    """Nothing runs after it, as after a kill."""


@pytest.mark.parametrize(
    ("death", "is_repaired"),
    [("set_tag", True), ("set_terminated", False), ("write_report", True), ("publish", False)],
)
def test_a_rollback_that_was_killed_is_told_once_and_not_made_twice(
    world: World,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    death: str,
    is_repaired: bool,
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    places = {"set_tag": Registry, "set_terminated": MlflowClient, "write_report": rollback_step,
              "publish": run_module}  # fmt: skip
    make_champions(world, registry, "ab")
    with monkeypatch.context() as patch:
        name = {"write_report": "_write_report"}.get(death, death)
        patch.setattr(places[death], name, die)
        with pytest.raises(Killed):
            rollback(world, reason="blind to cats")
    if is_repaired:  # by somebody else's promotion
        with promotion_entry(registry, "pixclip"):
            pass
    report = rollback(world, reason="blind to cats")
    assert (report["champion_before"], report["champion_after"]) == ("2", "1")
    assert champions(registry) == ("1", "")
    assert registry.get(SECOND).tags[ROLLED_BACK_TAG] == "blind to cats"
    with pytest.raises(InputError, match="no previous champion"):
        rollback(world)


def test_a_user_without_a_name_may_roll_back(
    world: World, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    make_champions(world, registry, "ab")
    monkeypatch.setattr("getpass.getuser", unknown)
    rollback(world)
    log = registry.client.get_experiment_by_name("promotions")
    newest = registry.client.search_runs([log.experiment_id])[0]
    assert newest.data.tags["mlflow.user"].startswith("uid ")


def test_only_a_former_champion_can_come_back(world: World, registry: Registry) -> None:
    make_champions(world, registry, "a")
    world.candidate("b", num_right=3)
    for version, message in (("2", "never was the champion"), ("1", "already"), ("9", "has no")):
        with pytest.raises(InputError, match=message):
            rollback(world, version=version)
    assert champions(registry) == ("1", "")


def test_without_a_champion_there_is_nothing_to_take_back(world: World) -> None:
    with pytest.raises(InputError, match="has no champion"):
        rollback(world)
