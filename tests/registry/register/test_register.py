"""What `register` puts into the registry, and what it refuses."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import pixclip
from components.core.errors import InputError
from components.registry.models import Reference, Registry
from components.registry.runs import Run
from pixclip.evaluation.protocol import FGPART_PARTS, LONGGRIT_REGIONS, Protocol
from tests.model_registry import World, some_right, write_checkpoint, write_evaluation

CANDIDATE = Reference("pixclip", "candidate")


def test_a_version_is_a_plain_checkpoint_with_card_evaluation_and_lineage(
    world: World, registry: Registry, tmp_path: Path
) -> None:
    world.checkpoint("a", num_right=30)
    registration = world.register("a", recipe="tiny", data_revision="f00")
    version = registry.get(CANDIDATE)
    told = json.loads((registration / "registration.json").read_text())
    assert (told["model"], told["version"]) == ("pixclip", "1") == (version.model, version.number)
    (tmp_path / "got").mkdir()
    folder = registry.download_verified(version, tmp_path / "got")
    model = pixclip.load(folder)
    original = pixclip.load(tmp_path / "a" / "checkpoint")
    assert model.state_dict().keys() == original.state_dict().keys()
    assert (model.logit_scale == original.logit_scale).all()
    card = (folder / "README.md").read_text()
    assert "| accuracy among the regions of a scene | 75.0 % | 33.3 % |" in card
    assert "not natural photographs" in card
    assert (folder / "evaluation" / "samples.parquet").is_file()
    lineage = {"recipe": "tiny", "data_revision": "f00", "git_commit": "abc", "stage": "unknown"}
    assert lineage.items() <= version.tags.items()
    assert version.tags["all.scene_accuracy"] == "0.7500"
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=folder, check=True)


def test_the_card_of_a_model_of_parts_tells_of_crops_and_its_data(
    world: World, registry: Registry, tmp_path: Path
) -> None:
    def card_of(name: str, protocol: Protocol) -> str:
        changes = {"protocol": protocol.id, "protocol_digest": protocol.digest}
        world.candidate(name, num_right=30, **changes)
        (tmp_path / f"got {name}").mkdir()
        folder = registry.download_verified(registry.get(CANDIDATE), tmp_path / f"got {name}")
        return (folder / "README.md").read_text()

    regions, parts = card_of("a", LONGGRIT_REGIONS), card_of("b", FGPART_PARTS)
    assert "after PixCLIP" in regions
    assert "| training data | LongGRIT," in regions
    assert "after PA-CLIP" in parts
    assert "image.crop(first_box)" in parts
    assert "| training data | FG-Part," in parts


def test_the_card_names_the_data_by_their_version(
    world: World, registry: Registry, tmp_path: Path
) -> None:
    world.checkpoint("a", num_right=30)
    path = tmp_path / "a" / "evaluation" / "evaluation.json"
    content = json.loads(path.read_text())
    content["data"]["version"] = {"name": "pixclip_parts", "git_commit": "f00"}
    path.write_text(json.dumps(content))
    world.register("a")
    (tmp_path / "got").mkdir()
    folder = registry.download_verified(registry.get(CANDIDATE), tmp_path / "got")
    assert "| training data | pixclip_parts, revision f00" in (folder / "README.md").read_text()


def test_the_same_checkpoint_twice_is_the_same_version(world: World, registry: Registry) -> None:
    registration = world.candidate("a", num_right=30)
    world.candidate("b", num_right=20)
    assert registry.get(CANDIDATE).number == "2"
    registration.rename(registration.with_name("first"))
    world.register("a")
    assert registry.get(CANDIDATE).number == "1"
    assert len(registry.client.search_model_versions("name = 'pixclip'")) == 2


class Killed(BaseException):
    """Nothing runs after it, as after a kill."""


@pytest.mark.parametrize(
    "death",
    [
        "create_run", "create_logged_model", "log_model_artifacts", "finalize_logged_model",
        "create_registered_model", "create_model_version", "set_terminated",
        "set_registered_model_alias",
    ],
)  # fmt: skip
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_registration_that_was_killed_is_gone_on_with(
    world: World, registry: Registry, monkeypatch: pytest.MonkeyPatch, death: str, when: str
) -> None:
    real = getattr(MlflowClient, death)

    def die(*arguments: Any, **named: Any) -> None:
        if when == "after":
            real(*arguments, **named)
        raise Killed

    world.checkpoint("a", num_right=30)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, death, die)
        if death != "set_terminated":
            patch.setattr(Run, "end", lambda *_: None)
        with pytest.raises(Killed):
            world.register("a")
    registration = world.register("a")
    assert not (registration / "_work").exists()
    assert json.loads((registration / "registration.json").read_text())["version"] == "1"
    client = registry.client
    assert [found.version for found in client.search_model_versions("name = 'pixclip'")] == [1]
    experiment = client.get_experiment_by_name("pixclip").experiment_id
    statuses = [run.info.status for run in client.search_runs([experiment])]
    # A run that was made in the very moment of the kill is known to nobody.
    is_lost = death == "create_run" and when == "after"
    assert statuses == (["FINISHED", "RUNNING"] if is_lost else ["FINISHED"])
    logged = client.search_logged_models([experiment])
    assert len(logged) == 1
    version = registry.get(CANDIDATE)
    (world.folder / "got").mkdir()
    pixclip.load(registry.download_verified(version, world.folder / "got"))


@pytest.mark.parametrize("is_copied", [True, False])
def test_a_registry_that_was_moved_or_copied_keeps_its_files_beside_it(
    world: World, tmp_path: Path, is_copied: bool
) -> None:
    world.candidate("a", num_right=30)
    old, new = tmp_path / "tracking", tmp_path / "Ünïcode place" / "tracking"
    new.parent.mkdir()
    shutil.copytree(old, new) if is_copied else old.rename(new)
    before = sorted(old.rglob("*"))
    there = World(tmp_path, f"sqlite:///{new}/mlflow.db")
    there.candidate("b", num_right=35)
    assert sorted(old.rglob("*")) == before
    for number in "12":
        folder = tmp_path / f"got{number}"
        folder.mkdir()
        moved = Registry(there.tracking_uri)
        pixclip.load(moved.download_verified(moved.get(Reference("pixclip", number)), folder))


def test_an_evaluation_of_other_weights_is_refused(world: World, registry: Registry) -> None:
    world.checkpoint("a", num_right=30)
    write_checkpoint(world.folder / "a" / "checkpoint", seed=5)
    with pytest.raises(InputError, match="was made with other weights"):
        world.register("a")
    assert registry.find(CANDIDATE) is None


def test_a_checkpoint_with_an_altered_file_is_refused(world: World) -> None:
    world.checkpoint("a", num_right=30)
    config = world.folder / "a" / "checkpoint" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(InputError, match=r"config\.json is damaged or was altered"):
        world.register("a")


def test_registering_leaves_the_checkpoint_as_it_was(world: World) -> None:
    world.checkpoint("a", num_right=30)
    checkpoint = world.folder / "a" / "checkpoint"
    (checkpoint / "README.md").write_text("mine")
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    registration = world.register("a")
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    assert not (registration / "_work").exists()


def test_a_fetched_checkpoint_is_registered_with_its_new_evaluation(
    world: World, registry: Registry, tmp_path: Path
) -> None:
    world.candidate("a", num_right=30)
    (tmp_path / "b").mkdir()
    fetched = registry.download_verified(registry.get(CANDIDATE), tmp_path / "b")
    fetched.rename(tmp_path / "b" / "checkpoint")
    fetched = tmp_path / "b" / "checkpoint"
    (fetched / "evaluation" / "images.parquet").write_bytes(b"of the old evaluation")
    before = {path: path.read_bytes() for path in fetched.rglob("*") if path.is_file()}
    write_evaluation(tmp_path / "b" / "evaluation", fetched, some_right(20), dataset="e" * 64)
    world.register("b")
    assert {path: path.read_bytes() for path in fetched.rglob("*") if path.is_file()} == before
    (tmp_path / "got").mkdir()
    got = registry.download_verified(registry.get(CANDIDATE), tmp_path / "got") / "evaluation"
    assert json.loads((got / "evaluation.json").read_text())["data"]["dataset"] == "e" * 64
    assert not (got / "images.parquet").exists()


def test_a_checkpoint_that_is_none_is_refused(world: World) -> None:
    world.checkpoint("a", num_right=30)
    (world.folder / "a" / "checkpoint" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        world.register("a")


def test_texts_of_strangers_cannot_become_markup_in_the_card(
    world: World, registry: Registry, tmp_path: Path
) -> None:
    world.checkpoint("a", num_right=30)
    world.register("a", recipe="<script>|x\n# big", data_revision="[a](javascript:b)")
    (tmp_path / "got").mkdir()
    folder = registry.download_verified(registry.get(CANDIDATE), tmp_path / "got")
    card = (folder / "README.md").read_text()
    assert "| recipe | script x big, stage unknown |" in card
    assert "[a]" not in card
