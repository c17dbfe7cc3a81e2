"""A pipeline through `kfp.local`: real components in real processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl

from components.core.kubeflow import component_of
from components.core.step import load_step
from components.orchestration.kubeflow.local import PipelineFailedError, run_local
from components.orchestration.kubeflow.own_tasks import record_outcome
from tests.packed import make_longgrit


def small_pipeline(folder: Path, **settings: Any) -> str:
    """The pipeline's first two steps and its exit handler, compiled."""

    @dsl.pipeline(name="small")
    def small() -> None:
        with dsl.ExitHandler(record_outcome()):
            data = component_of(load_step("resolve_data"))(
                settings=json.dumps(settings)
            ).set_caching_options(False)
            data.set_retry(1, backoff_duration="0s")
            component_of(load_step("check"))(checked=data.outputs["dataset"])

    path = folder / "small.yaml"
    compiler.Compiler().compile(small, str(path))
    return path.read_text()


@pytest.fixture
def longgrit(tmp_path) -> Path:
    return make_longgrit(tmp_path / "longgrit")


def test_a_run_tells_its_tasks_and_finds_its_artifacts(longgrit, tmp_path):
    said: list[str] = []
    text = small_pipeline(tmp_path, uri=str(longgrit))
    run = run_local(text, tmp_path / "root", said.append)
    assert [line for line in said if not line.startswith(" ")] == [
        "resolve-data",
        "check",
        "record-outcome",
    ]
    assert "pipeline SUCCEEDED" in "".join(said)
    assert (run.artifacts["data_docs"] / "index.html").exists()
    assert (run.artifacts["dataset"] / "version.json").exists()
    assert list((tmp_path / "root" / "state" / "check").iterdir()), "the next run finds its work"


def test_a_failed_run_says_which_step_failed_and_why(tmp_path):
    said: list[str] = []
    text = small_pipeline(tmp_path, uri=str(tmp_path / "nowhere"))
    with pytest.raises(
        PipelineFailedError, match=r"at resolve-data: InputError: .*nowhere is no folder"
    ):
        run_local(text, tmp_path / "root", said.append)
    assert said.count("resolve-data") == 2, "it is retried once"
    assert "pipeline FAILED" in "".join(said), "the exit handler still runs"
