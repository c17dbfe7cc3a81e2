"""What runs inside a Kubeflow component."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.core import kubeflow
from components.core.errors import ContractViolation, GateError, PipelineError, SettingsError
from components.core.kubeflow import component_of, image, read_outcome, run_component, write_outcome
from components.core.pointers import POINTER_NAME
from components.core.process import WAITING_THREADS
from components.core.state import VARIABLE
from components.core.step import In, Metrics, Out, StepSettings, step


class FakeArtifact:
    """A kfp artifact: a path, where the runner keeps it, and what was logged."""

    def __init__(self, path: Path, uri: str = "") -> None:
        self.path, self.uri = str(path), uri or str(path)
        self.logged: dict[str, float] = {}
        self.metadata: dict[str, object] = {}

    def log_metric(self, metric: str, value: float) -> None:
        self.logged[metric] = value


class CopySettings(StepSettings):
    times: int = 1
    is_refused: bool = False
    loss: float = 0.5


@step(image="data")
def export(exports: In, publication: Out, settings: CopySettings) -> Metrics:
    """Copy a text some times."""
    if settings.is_refused:
        raise GateError("export lost too much", {"too_small": 2}, "Look at it.")
    publication.mkdir()
    (publication / "text").write_text((exports / "text").read_text() * settings.times)
    (publication / "report.html").write_text("<p>pages people open")
    return {"num_copies": settings.times, "loss": settings.loss}


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
    assert metrics.logged == {"num_copies": 3.0, "loss": 0.5}


def test_destinations_move_the_outputs_and_kfp_is_told_where(component, tmp_path):
    component({}, {"publication": str(tmp_path / "exports"), "metrics": str(tmp_path / "outcome")})
    assert (tmp_path / "exports" / "text").read_text() == "ab"
    assert component.place.path == str(tmp_path / "exports")
    assert read_outcome(tmp_path / "outcome") == {"num_copies": 1, "loss": 0.5}


def test_destinations_are_refused_where_the_runner_carries_artifacts_to_an_address(
    component, tmp_path
):
    component.place.uri = "s3://mlpipeline/v2/artifacts/p/1/export/2/publication"
    with pytest.raises(SettingsError, match=r"export: destinations\.publication is .*s3://mlpipe"):
        component({}, {"publication": str(tmp_path / "exports")})
    assert not (tmp_path / "exports").exists()


def test_a_metric_that_is_no_number_is_not_told_to_kubeflow(component):
    assert component({"loss": "nan"}, {}).logged == {"num_copies": 1.0}
    assert math.isnan(read_outcome(Path(component.metrics.path))["loss"])


@pytest.fixture
def carried(component, tmp_path, monkeypatch):
    """The same on a cluster: artifacts are carried to S3, and there is a state volume."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    component.place.uri = "s3://mlpipeline/v2/artifacts/p/1/export/2/publication"
    component.metrics.uri = "s3://mlpipeline/v2/artifacts/p/1/export/2/metrics"
    return component


def test_a_carried_artifact_is_a_pointer_with_its_pages_and_the_data_stay(carried, tmp_path):
    carried({"times": 2}, {})
    folder = Path(carried.place.path)
    assert sorted(path.name for path in folder.iterdir()) == [POINTER_NAME, "report.html"]
    (kept,) = (tmp_path / "state").glob("export/*/publication")
    assert (kept / "text").read_text() == "abab"
    told = json.loads((folder / POINTER_NAME).read_text())
    assert told["uri"] == kept.as_uri()
    assert told["num_bytes"] == sum(path.stat().st_size for path in kept.iterdir())
    assert carried.place.metadata == told


def test_a_server_s_log_has_the_metrics_in_a_line_and_a_laptop_s_has_not(component, caplog):
    with caplog.at_level("INFO", "components.core.kubeflow"):
        component({}, {})
        assert "pixclip-metrics" not in caplog.text
        component.metrics.uri = "s3://mlpipeline/metrics"
        component({"loss": "nan"}, {})
    assert 'pixclip-metrics export {"num_copies": 1}' in caplog.text


def test_an_input_that_is_a_pointer_is_followed(carried, tmp_path, monkeypatch):
    carried({"times": 2}, {})
    again = step(image="data")(read_publication)
    monkeypatch.setattr(kubeflow, "load_step", lambda name: again)
    out, metrics = FakeArtifact(tmp_path / "kfp/next"), FakeArtifact(tmp_path / "kfp/metrics2")
    run_component(
        "export",
        inputs={"publication": carried.place},
        outputs={"exports": out},
        metrics=metrics,
        settings="{}",
        destinations="{}",
    )
    assert Path(out.path, "text").read_text() == "ABAB"


def read_publication(publication: In, exports: Out, settings: CopySettings) -> Metrics:
    """Write a text large."""
    exports.mkdir()
    (exports / "text").write_text((publication / "text").read_text().upper())
    return {"n": 1}


def test_names_of_a_task_s_own_are_those_of_its_s3_clients(component, monkeypatch):
    monkeypatch.setenv("PIXCLIP_S3_ACCESS_KEY_ID", "key-of-the-task")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "before")
    component({}, {})
    assert os.environ["AWS_ACCESS_KEY_ID"] == "key-of-the-task"


def test_a_component_s_threads_sleep_while_they_wait(component, monkeypatch):
    for name in WAITING_THREADS:
        monkeypatch.delenv(name, raising=False)
    component({}, {})
    assert WAITING_THREADS.items() <= os.environ.items()


def test_a_setting_of_the_task_wins_over_those_that_its_step_shares(component):
    assert component({"times": 3}, {}, times="2").logged["num_copies"] == 2.0


def test_an_empty_setting_of_the_task_leaves_the_shared_one(component):
    assert component({"times": 3}, {}, times="").logged["num_copies"] == 3.0


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
