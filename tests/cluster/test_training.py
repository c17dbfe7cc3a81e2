"""The step `train` with its ranks on two nodes, while drivers, ranks and nodes are taken away.

A real API server for custom resources, the project's driver, two torchruns with the variables that
Trainer's torch plugin gives; only the pods are processes of this machine.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pixclip
from components.core.nodes import CREATED_NAME, cancel_run
from components.core.receipts import read_receipt
from components.core.trainjob import RUN_VARIABLE, VARIABLE, JobPlace
from pixclip.checksums import weights_digest
from pixclip.training.job import read_steps
from tests.cluster.front import front
from tests.cluster.trainer import ROOT, Trainer, wait_until
from tests.pixclip.training.world import write_packed_world

pytestmark = pytest.mark.slow
NUM_STEPS = 100
CHANGES = {"data.batch_size": 6, "data.shuffle_shards": 2, "num_steps": NUM_STEPS}
SETTINGS = {"stage": "align", "changes": CHANGES, "num_ranks": 2, "save_every_steps": 5}
INPUTS = ("dataset", "text_embeddings", "parent")
# The command line in a hurry: it asks the server several times a second.
DRIVER = """
import sys
from components.core import nodes
nodes.POLL_S = 0.2
from components.cli import main
main()
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """What stands for the claim: a packed data set, vectors for its captions, a random model."""
    return write_packed_world(tmp_path_factory.mktemp("state"))


class Drivers:
    """Starts drivers of one piece of work."""

    def __init__(self, state: Path, name: str, kubeconfig: Path | None) -> None:
        self.output = state / name
        self._state, self._kubeconfig = state, kubeconfig

    def start(self, run_id: str = "run-1") -> subprocess.Popen:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'model'}",
            "MLFLOW_TRACKING_URI": f"sqlite:///{self._state}/mlflow.db",
        }
        if self._kubeconfig:
            place = JobPlace(
                step="train",
                image="registry.example/pixclip-train:1.0",
                num_nodes=2,
                runtime="pixclip-torch",
                state_claim="pixclip-state",
                state_path=str(self._state),
                queue="train",
                cpu="1",
                memory="1Gi",
            )
            environment |= {
                "KUBECONFIG": str(self._kubeconfig),
                VARIABLE: place.model_dump_json(exclude_defaults=True),
                RUN_VARIABLE: run_id,
            }
        paths = {name: self._state / name for name in INPUTS}
        paths |= {"checkpoint": self.output / "checkpoint", "curves": self.output / "curves.csv"}
        options = [f"--{name.replace('_', '-')}={path}" for name, path in paths.items()]
        options += [f"--set={name}={json.dumps(value)}" for name, value in SETTINGS.items()]
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, "train", *options],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def num_steps(self) -> int:
        found = [len(read_steps(path.parent)) for path in self.output.rglob("steps.jsonl")]
        return max(found, default=0)

    def created(self) -> str:
        """The job that the state is of, as the last driver noted it."""
        (path,) = self.output.rglob(CREATED_NAME)
        return json.loads(path.read_text())["uid"]

    def losses(self) -> list[str]:
        rows = (self.output / "curves.csv").read_text().splitlines()
        place = rows[0].split(",").index("loss")
        return [row.split(",")[place] for row in rows[1:]]


@pytest.fixture(scope="module")
def alone(state) -> list[str]:
    """The losses of two ranks of this machine, which nobody disturbs."""
    drivers = Drivers(state, "alone", None)
    _, told = (driver := drivers.start()).communicate(timeout=300)
    assert driver.returncode == 0, told[-3000:]
    return drivers.losses()


@pytest.fixture
def cluster(kubeconfig, api):
    with Trainer(kubeconfig) as trainer, front(kubeconfig, trainer) as (_, path):
        yield trainer, path


def finish(driver: subprocess.Popen) -> str:
    _, told = driver.communicate(timeout=300)
    assert driver.returncode == 0, told[-3000:]
    return told


def test_drivers_ranks_and_nodes_go_and_the_losses_are_those_of_a_run_left_alone(
    cluster, state, alone
):
    trainer, kubeconfig = cluster
    drivers = Drivers(state, "disturbed", kubeconfig)
    first = drivers.start()
    wait_until(lambda: drivers.num_steps() > 5)
    trainer.signal_ranks(signal.SIGSTOP)  # on a quiet machine they would be done before the next
    first.kill()
    first.wait()
    created = drivers.created()

    second = drivers.start(run_id="run-2")
    wait_until(
        lambda: any(j["metadata"]["labels"]["pixclip.dev/run"] == "run-2" for j in trainer.jobs())
    )
    os.kill(trainer.pods()[1].ranks()[0], signal.SIGKILL)
    trainer.signal_ranks(signal.SIGCONT)
    wait_until(lambda: trainer.num_starts() == 2)

    wait_until(lambda: drivers.num_steps() > 20)
    trainer.is_queue_open = False  # Kueue takes the nodes away
    wait_until(lambda: not trainer.pods())
    assert drivers.num_steps() < NUM_STEPS, "the nodes were taken away in time"
    trainer.is_queue_open = True
    told = finish(second)

    assert drivers.losses() == alone
    assert len(alone) == NUM_STEPS
    assert trainer.created == [created]
    assert trainer.num_starts() == 3
    assert trainer.jobs() == []
    assert trainer.pods() == []
    for state_told in ("is there already", "waits in the queue", "runs on 2 node(s)", "node 0: "):
        assert state_told in told, told
    receipt = read_receipt(drivers.output / "checkpoint")
    assert receipt is not None
    assert receipt.metrics["num_steps"] == NUM_STEPS
    assert weights_digest(drivers.output / "checkpoint") == weights_digest(
        state / "alone" / "checkpoint"
    )
    pixclip.load(drivers.output / "checkpoint")


def test_a_cancelled_run_leaves_no_job_and_the_next_goes_on_from_what_its_ranks_saved(
    cluster, state, alone, monkeypatch
):
    trainer, kubeconfig = cluster
    drivers = Drivers(state, "cancelled", kubeconfig)
    driver = drivers.start()
    wait_until(lambda: drivers.num_steps() > 5)
    trainer.signal_ranks(signal.SIGSTOP)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    assert len(cancel_run("run-1")) == 1
    trainer.signal_ranks(signal.SIGCONT)
    _, told = driver.communicate(timeout=300)
    assert driver.returncode == 1
    assert "was deleted while it ran" in told
    assert trainer.jobs() == []
    assert trainer.pods() == []
    num_saved = drivers.num_steps()
    assert 5 < num_saved < NUM_STEPS
    assert not (drivers.output / "checkpoint").exists()

    again = finish(drivers.start(run_id="run-2"))
    assert "is created" in again
    assert drivers.losses() == alone
    assert len(trainer.created) == 2
    assert trainer.jobs() == []
