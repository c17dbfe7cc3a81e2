"""What runs inside a Kubeflow component."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.core import kubeflow
from components.core.errors import ContractViolation, GateError, PipelineError
from components.core.kubeflow import component_of, image, read_outcome, run_component, write_outcome
from components.core.process import WAITING_THREADS
from components.core.step import In, Metrics, Out, StepSettings, step


class FakeArtifact:
    """A kfp artifact: a path, and what was logged."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.logged: dict[str, float] = {}

    def log_metric(self, metric: str, value: float) -> None:
        self.logged[metric] = value


class CopySettings(StepSettings):
    times: int = 1
    is_refused: bool = False


@step(image="data")
def export(exports: In, publication: Out, settings: CopySettings) -> Metrics:
    """Copy a text some times."""
    if settings.is_refused:
        raise GateError("export lost too much", {"too_small": 2}, "Look at it.")
    publication.mkdir()
    (publication / "text").write_text((exports / "text").read_text() * settings.times)
    return {"num_copies": settings.times}


@pytest.fixture
def component(tmp_path, monkeypatch):
    """Runs the copying step as a component whose artifacts lie in kfp's own places."""
    monkeypatch.setattr(kubeflow, "load_step", lambda name: export)
    source, place, metrics = (FakeArtifact(tmp_path / "kfp" / n) for n in ("in", "out", "metrics"))
    Path(source.path).mkdir(parents=True)
    Path(source.path, "text").write_text("ab")

    def run(
        settings: dict[str, object], destinations: dict[str, str], **per_task: str
    ) -> FakeArtifact:
        run_component(
            "export",
            inputs={"exports": source},
            outputs={"publication": place},
            metrics=metrics,
            settings=json.dumps(settings),
            destinations=json.dumps(destinations),
            per_task=per_task,
        )
        return metrics

    run.place, run.metrics = place, metrics
    return run


def test_a_component_without_destinations_writes_where_kfp_says(component):
    metrics = component({"times": 3}, {})
    assert Path(component.place.path, "text").read_text() == "ababab"
    assert metrics.logged == {"num_copies": 3.0}


def test_destinations_move_the_outputs_and_kfp_is_told_where(component, tmp_path):
    component({}, {"publication": str(tmp_path / "exports"), "metrics": str(tmp_path / "outcome")})
    assert (tmp_path / "exports" / "text").read_text() == "ab"
    assert component.place.path == str(tmp_path / "exports")
    assert read_outcome(tmp_path / "outcome") == {"num_copies": 1}


def test_a_component_s_threads_sleep_while_they_wait(component, monkeypatch):
    for name in WAITING_THREADS:
        monkeypatch.delenv(name, raising=False)
    component({}, {})
    assert WAITING_THREADS.items() <= os.environ.items()


def test_a_setting_of_the_task_wins_over_those_that_its_step_shares(component):
    assert component({"times": 3}, {}, times="2").logged == {"num_copies": 2.0}


def test_an_empty_setting_of_the_task_leaves_the_shared_one(component):
    assert component({"times": 3}, {}, times="").logged == {"num_copies": 3.0}


def test_any_summary_of_a_step_can_stand_in_its_component():
    @step(image="data")
    def strange(publication: Out, settings: CopySettings) -> Metrics:
        r"""Say "hello", in \n and '''.""\""""
        return {}

    assert component_of(strange).component_spec.description == strange.summary


def test_an_error_is_raised_and_left_for_the_runner(component):
    with pytest.raises(GateError):
        component({"is_refused": True}, {})
    with pytest.raises(GateError, match="too_small 2") as caught:
        read_outcome(Path(component.metrics.path))
    assert caught.value.reasons == {"too_small": 2}


class OwnError(ContractViolation):
    """An error class that only a step knows."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ContractViolation("records", ["box outside"]), ContractViolation),
        (OwnError("records", ["box outside"]), ContractViolation),
        (PipelineError("a disk is full"), PipelineError),
    ],
)
def test_an_error_comes_back_as_its_nearest_known_class(error, kind, tmp_path):
    write_outcome(tmp_path / "outcome", error)
    with pytest.raises(PipelineError) as caught:
        read_outcome(tmp_path / "outcome")
    assert type(caught.value) is kind
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)


def test_a_component_dies_with_its_runner():
    code = (
        "import time; from components.core.kubeflow import stop_with_the_runner as stop; "
        "stop(); print('ready', flush=True); time.sleep(60)"
    )
    read_end, write_end = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", code], stdout=write_end)
    os.close(write_end)
    assert os.read(read_end, 5) == b"ready"
    assert child.poll() is None, "it lives while somebody reads"
    os.close(read_end)
    assert child.wait(timeout=5) == 1


def test_the_names_of_images_follow_the_environment(monkeypatch):
    assert image("data") == "example.test/pixclip-data:dev"
    monkeypatch.setenv("PIXCLIP_IMAGE_REPOSITORY", "registry.example.org/team")
    monkeypatch.setenv("PIXCLIP_IMAGE_TAG", "1.2.0")
    assert image("annotate") == "registry.example.org/team/pixclip-annotate:1.2.0"
