"""A few kills of every kind; `make test-kills` does many of every step."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.data.describe.llm_server import Asked
from tests.kills.campaign import Trial, table, try_once
from tests.kills.moments import CHANGE, CHILD, LOCK, REAL, TIME, Kill
from tests.kills.outcome import asked_again, downloaded_again
from tests.kills.processes import Warm
from tests.kills.world import World, make_world
from tests.model_registry import some_right, write_checkpoint, write_evaluation

DATA = ("import_grit", "select", "ingest", "deduplicate", "segment", "describe", "pack")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose training is replaced by a drawn checkpoint."""
    folder = tmp_path_factory.mktemp("kills") / "Ünïcode place"
    with Warm() as warm, make_world(folder, warm) as world:
        checkpoint = write_checkpoint(world.folder / "train" / "checkpoint", seed=1)
        write_evaluation(world.folder / "evaluate" / "evaluation", checkpoint, some_right(30))
        for name in (*DATA, "publish", "register", "promote", "rollback"):
            world.run_clean(world.tasks[name])
        yield world


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("select", [CHANGE, CHANGE]),
        ("ingest", [TIME, CHANGE]),
        ("describe", [TIME, CHANGE]),
        ("pack", [REAL]),
        ("publish", [CHANGE]),
        ("publish", [LOCK]),
        ("publish", [CHILD]),
        ("register", [CHANGE]),
        ("register", [LOCK]),
        ("promote", [CHANGE, LOCK]),
        ("rollback", [CHANGE, LOCK]),
    ],
)
def test_a_step_that_was_killed_leaves_what_an_undisturbed_one_leaves(
    world: World, name: str, kinds: list[str]
) -> None:
    trial = try_once(world, world.tasks[name], f"suite-{'-'.join(kinds)}", kinds)
    assert trial.problems == [], trial.notes
    assert trial.kills[0].hit or LOCK in kinds, trial


def test_the_driver_sees_what_is_left_behind_or_differs(world: World) -> None:
    class Careless(World):
        """Leaves a file beside the outputs."""

        def prepare(self, task, folder):  # type: ignore[no-untyped-def]
            command = super().prepare(task, folder)
            (folder / "stray.journal").write_text("stale")
            return command

    careless = Careless(**vars(world))
    trial = try_once(careless, world.tasks["select"], "careless", [CHANGE])
    assert trial.problems == ["left behind: stray.journal"]


def asked(key: str, nth: int, connection: int, is_answered: bool = True) -> Asked:
    return Asked("object", {}, key, connection, nth, 0.0, 1.0 if is_answered else None)


def test_only_what_was_received_must_not_be_asked_again() -> None:
    on_its_way = [asked("a", 1, 1), asked("a", 2, 2)]
    assert asked_again(on_its_way) == []
    received = [asked("a", 1, 1), asked("b", 1, 1, is_answered=False), asked("a", 2, 2)]
    assert asked_again(received) == ["object a"]
    assert downloaded_again(Counter({"/1": 2, "/2": 2}), num_kills=1) == []
    assert len(downloaded_again(Counter({f"/{n}": 2 for n in range(4)}), num_kills=1)) == 4


def test_the_table_counts_kills_that_met_a_running_step() -> None:
    trials = [
        Trial("pack", "1", [Kill(TIME, "", hit=True), Kill(LOCK, "", hit=False)]),
        Trial("pack", "2", [Kill(LOCK, "", hit=True)], ["left behind: x"]),
    ]
    rows = [line.split() for line in table(trials).splitlines()]
    assert rows[1] == ["pack", "1", "1", "2", "1"]
    assert rows[-1] == ["all", "1", "1", "2", "1"]
