"""Bringing models out of the registry, and what a person types to do so or to roll back."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

import pixclip
from components import cli
from components.core.errors import InputError, SettingsError
from components.registry.models import Reference, Registry, fetch, parse_address
from components.registry.promotions import PROMOTE, promotion_entry
from components.registry.store import TrackingError
from tests.model_registry import World

ADDRESS = "models:/pixclip@candidate"


def test_a_fetched_model_opens_and_a_second_fetch_finds_it_there(world: World) -> None:
    world.candidate("a", num_right=30)
    folder = fetch(ADDRESS, world.folder / "got" / "model", world.tracking_uri)
    assert pixclip.load(folder).config.vision.width == 16
    assert fetch(ADDRESS, folder, world.tracking_uri) == folder
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_the_default_folder_says_which_version_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.candidate("a", num_right=30)
    monkeypatch.chdir(world.folder)
    assert fetch(ADDRESS, None, world.tracking_uri) == Path("models/pixclip-1")


def test_a_damaged_file_of_the_store_is_not_brought(world: World) -> None:
    world.candidate("a", num_right=30)
    (stored,) = world.folder.glob("tracking/artifacts/**/artifacts/config.json")
    stored.write_text(stored.read_text() + " ")
    with pytest.raises(InputError, match=r"not as registered, e\.g\. config\.json"):
        fetch(ADDRESS, world.folder / "got", world.tracking_uri)
    assert not (world.folder / "got").exists()
    (stored.with_name("SHA256SUMS")).write_text("")
    with pytest.raises(InputError, match="is not the list that was registered"):
        fetch(ADDRESS, world.folder / "got", world.tracking_uri)


def test_a_registry_cannot_choose_where_a_model_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.candidate("a", num_right=30)
    hostile = SimpleNamespace(name="../../evil/x", version="1", tags={}, run_id="")
    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", lambda *_: hostile)
    monkeypatch.chdir(world.folder)
    with pytest.raises(TrackingError, match="nothing is used"):
        fetch(ADDRESS, None, world.tracking_uri)
    assert not (world.folder / "models").exists()


def test_what_is_in_the_place_is_not_replaced(world: World) -> None:
    world.candidate("a", num_right=30)
    (world.folder / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already and is not models:/pixclip/1"):
        fetch(ADDRESS, world.folder, world.tracking_uri)
    assert (world.folder / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "address",
    ["pixclip", "models:/pixclip", "models:/../x@champion", "models:/a/b/c", "models:/a@b/c",
     "models:/A@champion", "models:/a' or 1=1@champion", "models:/a@v 1", "runs:/abc/model",
     "models:/a\n@b", "models:/a@b\n"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="is no"):
        parse_address(address)


def test_a_model_that_is_not_there_is_told_with_the_registry_that_was_asked(world: World) -> None:
    with pytest.raises(InputError, match=r"no models:/pixclp@champion; it is sqlite:///.*\.db"):
        fetch("models:/pixclp@champion", None, world.tracking_uri)


def test_an_address_says_alias_or_number() -> None:
    assert parse_address("models:/pixclip@champion") == Reference("pixclip", "champion")
    assert str(parse_address("models:/pixclip/12")) == "models:/pixclip/12"


def command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(sys, "argv", ["pixclip", *arguments])
    cli.main()


def test_people_roll_back_and_fetch_without_naming_folders(
    world: World,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, name in (("1", "a"), ("2", "b")):
        world.candidate(name, num_right=30)
        with promotion_entry(registry, "pixclip") as entry:
            entry.move(PROMOTE, registry.get(Reference("pixclip", number)), "a test")
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", world.tracking_uri)
    command(["rollback", "--model", "pixclip", "--reason", "blind to cats"], monkeypatch)
    assert "champion_version: 1" in capsys.readouterr().out
    (report,) = world.folder.glob("runs/promotions/*/report.json")
    assert "blind to cats" in report.read_text()
    command(["fetch", "models:/pixclip@champion"], monkeypatch)
    assert capsys.readouterr().out == "models/pixclip-1\n"
    assert (world.folder / "models/pixclip-1/model.safetensors").is_file()
