"""Who becomes the champion, who does not, and what is told of it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.errors import GateError, InputError, SettingsError
from components.core.run import run_step
from components.core.step import load_step
from components.registry.models import ROLLED_BACK_TAG, Reference, Registry
from components.registry.store import TrackingError
from pixclip.evaluation.protocol import FGPART_PARTS, LONGGRIT_REGIONS
from tests.model_registry import World


def promote(world: World, registration: Path, **settings: object) -> dict[str, object]:
    """The report of a promotion."""
    folder = registration.with_name("promotion")
    run_step(
        load_step("promote"),
        {"registration": registration},
        {"promotion": folder},
        {**world.settings, **settings},
    )
    report: dict[str, object] = json.loads((folder / "report.json").read_text())
    return report


def numbers(registry: Registry) -> dict[str, str]:
    """Where the aliases point."""
    aliases = ("candidate", "champion", "previous")
    found = {alias: registry.find(Reference("pixclip", alias)) for alias in aliases}
    return {alias: version.number for alias, version in found.items() if version}


def failed(report: dict[str, object]) -> list[str]:
    checks = report["checks"]
    assert isinstance(checks, list)
    return [check["name"] for check in checks if not check["passed"]]


def test_the_first_good_candidate_becomes_the_champion(world: World, registry: Registry) -> None:
    report = promote(world, world.candidate("a", num_right=30))
    assert report["outcome"] == "promoted"
    assert numbers(registry) == {"candidate": "1", "champion": "1"}


def test_a_better_candidate_takes_the_champion_s_place(world: World, registry: Registry) -> None:
    promote(world, world.candidate("a", num_right=20))
    report = promote(world, world.candidate("b", num_right=35))
    assert (report["outcome"], report["champion_before"]) == ("promoted", "1")
    assert numbers(registry) == {"candidate": "2", "champion": "2", "previous": "1"}


@pytest.mark.parametrize(
    ("num_right", "reasons"),
    [
        (
            20,
            [
                "scene_accuracy: not worse than the champion",
                "mask_to_text_r1: not worse than the champion",
                "text_to_mask_r1: not worse than the champion",
                "scene_accuracy: better than the champion",
            ],
        ),
        # A loss of one scene is within the interval, but it is no gain.
        (34, ["scene_accuracy: better than the champion"]),
        (35, ["scene_accuracy: better than the champion"]),
    ],
    ids=["worse", "a little worse", "equal"],
)
def test_a_candidate_that_is_not_better_is_registered_but_not_promoted(
    world: World, registry: Registry, num_right: int, reasons: list[str]
) -> None:
    promote(world, world.candidate("a", num_right=35))
    report = promote(world, world.candidate("b", num_right=num_right))
    assert report["outcome"] == "kept"
    assert failed(report) == reasons
    assert numbers(registry) == {"candidate": "2", "champion": "1"}
    page = (world.folder / "b" / "promotion" / "report.html").read_text()
    assert "version 2 did not become the champion" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        ({"minimums": {"scene_accuracy": 0.9}}, ["scene_accuracy: minimum"]),
        ({"minimums": {"held_out_objects.scene_accuracy": 0.1}},
         ["number of samples", "held_out_objects.scene_accuracy: minimum"]),
        ({"min_samples": 121}, ["number of samples"]),
        ({"protocol": "fgpart-parts/1"}, ["protocol"]),
    ],
)  # fmt: skip
def test_a_first_candidate_must_meet_the_policy_too(
    world: World, registry: Registry, settings: dict[str, object], reasons: list[str]
) -> None:
    report = promote(world, world.candidate("a", num_right=30), **settings)
    assert failed(report) == reasons
    assert numbers(registry) == {"candidate": "1"}


def test_numbers_of_other_samples_do_not_decide(world: World, registry: Registry) -> None:
    promote(world, world.candidate("a", num_right=20))
    registration = world.candidate("b", num_right=35, dataset="e" * 64)
    report = promote(world, registration)
    assert failed(report) == ["comparable with the champion"]
    assert promote(world, registration, allow_incomparable=True)["outcome"] == "promoted"
    assert numbers(registry)["champion"] == "2"


def test_a_metric_that_nobody_asked_is_not_an_incomparable_champion(
    world: World, registry: Registry
) -> None:
    promote(world, world.candidate("a", num_right=35))
    report = promote(
        world,
        world.candidate("b", num_right=20),
        allow_incomparable=True,
        must_beat="seen_object.scene_accuracy",
    )
    assert failed(report) == ["number of samples", "comparable with the champion"]
    assert numbers(registry)["champion"] == "1"


def test_numbers_of_another_split_are_not_those_of_the_protocol(
    world: World, registry: Registry
) -> None:
    val = LONGGRIT_REGIONS.of_split("val")
    report = promote(world, world.candidate("a", num_right=30, protocol_digest=val.digest))
    assert failed(report) == ["protocol"]
    assert "champion" not in numbers(registry)


def test_numbers_of_parts_decide_where_the_policy_asks_for_them(
    world: World, registry: Registry
) -> None:
    digest = FGPART_PARTS.digest
    registration = world.candidate(
        "a", num_right=30, protocol_digest=digest, protocol="fgpart-parts/1"
    )
    assert promote(world, registration, protocol="fgpart-parts/1")["outcome"] == "promoted"


def test_a_protocol_that_nobody_knows_is_refused(world: World) -> None:
    with pytest.raises(SettingsError, match=r"promote\.protocol: .*known are longgrit-regions/1"):
        promote(world, world.candidate("a", num_right=30), protocol="longgrit-regions/2")


def test_a_version_that_was_taken_back_does_not_return(world: World, registry: Registry) -> None:
    registration = world.candidate("a", num_right=30)
    registry.set_tag(Reference("pixclip", "1"), ROLLED_BACK_TAG, "<b>it lies</b>")
    assert failed(promote(world, registration)) == ["was not rolled back"]
    page = (world.folder / "a" / "promotion" / "report.html").read_text()
    assert "&lt;b&gt;it lies&lt;/b&gt;" in page


def test_weights_that_were_taken_back_do_not_return_with_another_evaluation(
    world: World, registry: Registry
) -> None:
    world.candidate("a", num_right=30)
    registry.set_tag(Reference("pixclip", "1"), ROLLED_BACK_TAG, "blind to cats")
    shutil.rmtree(world.folder / "a")
    report = promote(world, world.candidate("a", num_right=30, revision="main"))
    assert (report["candidate"], failed(report)) == ("2", ["was not rolled back"])
    told = json.dumps(report)
    assert "rolled back as version 1: blind to cats" in told


def test_a_metric_that_few_regions_ask_does_not_decide(world: World, registry: Registry) -> None:
    report = promote(world, world.candidate("a", num_right=30, num_asked=99))
    assert failed(report) == ["number of samples"]
    assert "99 (scene_accuracy)" in json.dumps(report)
    assert "champion" not in numbers(registry)


def test_promoting_the_champion_again_changes_nothing(world: World, registry: Registry) -> None:
    promote(world, world.candidate("a", num_right=20))
    registration = world.candidate("b", num_right=30)
    promote(world, registration)
    assert promote(world, registration)["outcome"] == "already_champion"
    assert numbers(registry) == {"candidate": "2", "champion": "2", "previous": "1"}


def test_a_scheduler_may_ask_for_an_error(world: World) -> None:
    registration = world.candidate("a", num_right=2)
    with pytest.raises(GateError, match="version 1 did not become the champion"):
        promote(world, registration, fail_if_kept=True)


def test_an_evaluation_that_was_changed_in_the_store_is_not_believed(
    world: World, registry: Registry
) -> None:
    registration = world.candidate("a", num_right=2)
    (stored,) = world.folder.glob("tracking/artifacts/**/evaluation/evaluation.json")
    stored.write_text(stored.read_text().replace("0.05", "0.95"))
    with pytest.raises(InputError, match=r"not as registered, e\.g\. evaluation\.json"):
        promote(world, registration)
    assert "champion" not in numbers(registry)


def test_samples_that_were_changed_in_the_store_are_not_believed(
    world: World, registry: Registry
) -> None:
    promote(world, world.candidate("a", num_right=35))
    better = next(world.folder.glob("tracking/artifacts/**/evaluation/samples.parquet"))
    worse = world.candidate("b", num_right=20)
    for stored in world.folder.glob("tracking/artifacts/**/evaluation/samples.parquet"):
        stored.write_bytes(better.read_bytes())
    with pytest.raises(InputError, match=r"not as registered, e\.g\. samples\.parquet"):
        promote(world, worse)
    assert numbers(registry)["champion"] == "1"


def test_a_champion_whose_files_are_gone_is_told_with_what_to_do(world: World) -> None:
    promote(world, world.candidate("a", num_right=20))
    for stored in world.folder.glob("tracking/artifacts/**/evaluation"):
        shutil.rmtree(stored)
    with pytest.raises(TrackingError, match=r"models:/pixclip/1 .*delete the version in MLflow"):
        promote(world, world.candidate("b", num_right=30))


def test_a_registration_of_another_registry_is_told_of(world: World, tmp_path: Path) -> None:
    registration = tmp_path / "registration"
    registration.mkdir()
    (registration / "registration.json").write_text('{"model": "pixclip", "version": "7"}')
    with pytest.raises(InputError, match="the registry has no models:/pixclip/7"):
        promote(world, registration)
    (registration / "registration.json").write_text('{"model": "../x", "version": "7"}')
    with pytest.raises(SettingsError, match="is no name of a model"):
        promote(world, registration)
    (registration / "registration.json").unlink()
    with pytest.raises(InputError, match="register first"):
        promote(world, registration)


def test_an_unknown_metric_in_the_policy_is_refused_at_once(world: World, tmp_path: Path) -> None:
    (tmp_path / "registration").mkdir()
    with pytest.raises(SettingsError, match="no metric 'acuracy'"):
        promote(world, tmp_path / "registration", must_beat="acuracy")


PROMOTE = """
import sys
from pathlib import Path
from components.core.run import run_step
from components.core.step import load_step
folder = Path(sys.argv[1])
done = run_step(load_step("promote"), {"registration": folder / "registration"},
                {"promotion": folder / "promotion"}, {"tracking_uri": sys.argv[2]})
"""


def test_of_two_promotions_at_once_the_better_model_wins(world: World, registry: Registry) -> None:
    names = ("a", "b")
    for name, num_right in zip(names, (25, 35), strict=True):
        world.candidate(name, num_right)
    started = [
        subprocess.Popen([sys.executable, "-c", PROMOTE, world.folder / name, world.tracking_uri])
        for name in names
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    reports = [
        json.loads((world.folder / name / "promotion" / "report.json").read_text())
        for name in names
    ]
    assert numbers(registry)["champion"] == "2"
    # Either the worse came first and was replaced, or it came second and was kept out.
    outcome = [report["outcome"] for report in reports]
    if outcome[0] == "promoted":
        assert outcome == ["promoted", "promoted"]
        assert reports[1]["champion_before"] == "1"
        assert numbers(registry)["previous"] == "1"
    else:
        assert outcome == ["kept", "promoted"]
        assert "previous" not in numbers(registry)
