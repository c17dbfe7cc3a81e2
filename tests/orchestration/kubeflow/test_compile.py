"""The compiled pipeline: what Kubeflow is given."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import components

from components.core.errors import SettingsError
from components.core.step import load_step
from components.orchestration.kubeflow.cluster import ClusterSettings, read_cluster
from components.orchestration.kubeflow.compile import PIPELINES, compile_pipeline, pipeline_settings
from components.orchestration.kubeflow.pixclip_train import STEPS

ROOT = Path(__file__).parents[3]
PARAMS = ROOT / PIPELINES["pixclip-train"]
GOLDEN = Path(__file__).with_name("pixclip-train.yaml")
NOT_CACHED = {"resolve-data", "register", "promote", "record-outcome"}


def compiled(cluster: ClusterSettings | None = None, **overrides: Any) -> str:
    settings = pipeline_settings(PARAMS, overrides)
    return compile_pipeline(settings, cluster or read_cluster(ROOT / "cluster.yaml"))


@pytest.fixture(scope="module")
def text() -> str:
    return compiled()


@pytest.fixture(scope="module")
def parts(text) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline, and what the platform adds to its executors."""
    spec, platform = yaml.safe_load_all(text)
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def executors(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: executor["container"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
    }


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    inner = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return {**spec["root"]["dag"]["tasks"], **inner}


def step_of(executor: str) -> str:
    return executor.removeprefix("exec-").rstrip("-0123456789").replace("-", "_")


def test_the_pipeline_is_the_one_we_know(text):
    """After a wanted change, write it anew: `make golden` (UPDATE_GOLDEN=1)."""
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text


def test_the_same_settings_give_the_same_bytes(text):
    assert compiled() == text


def test_kubeflow_s_own_loader_takes_it(text):
    pipeline = components.load_component_from_text(text)
    assert pipeline.name == "pixclip-train"
    assert tuple(sorted(pipeline.component_spec.inputs)) == tuple(sorted(STEPS))


def test_every_parameter_has_the_settings_of_the_params_file_as_default(parts):
    defaults = parts[0]["root"]["inputDefinitions"]["parameters"]
    for step in STEPS:
        section = yaml.safe_load(PARAMS.read_text()).get(step, {})
        assert yaml.safe_load(defaults[step]["defaultValue"]) == section


def test_tasks_with_a_gpu_have_accelerators_pool_and_shared_memory_and_others_none(parts):
    spec, platform = parts
    for name, container in executors(spec).items():
        step = step_of(name)
        needs_gpu = step != "record_outcome" and load_step(step).gpus > 0
        accelerator = container["resources"].get("accelerator", {})
        assert accelerator.get("resourceType") == ("nvidia.com/gpu" if needs_gpu else None), name
        assert platform[name]["nodeSelector"]["labels"] == {"pool": "gpu" if needs_gpu else "cpu"}
        assert bool(platform[name].get("tolerations")) == needs_gpu
        mounts = [mount["mountPath"] for mount in platform[name].get("emptyDirMounts", [])]
        assert mounts == (["/dev/shm"] if needs_gpu else [])


def test_training_gets_as_many_accelerators_as_the_cluster_says(parts):
    containers = executors(parts[0])
    counts = {
        name: c["resources"].get("accelerator", {}).get("resourceCount")
        for name, c in containers.items()
    }
    assert counts["exec-train"] == counts["exec-train-2"] == "2"
    assert counts["exec-evaluate"] == "1"


def test_accelerators_that_no_rank_would_use_are_refused():
    with pytest.raises(SettingsError, match=r"train gets 8 accelerator.*train\.num_ranks is 2"):
        compiled(ClusterSettings(gpus={"train": 8}))
    assert compiled(ClusterSettings(gpus={"train": 8, "evaluate": 1}), train={"num_ranks": 8})


def test_ranks_without_an_accelerator_are_refused():
    with pytest.raises(SettingsError, match=r"train gets 1 accelerator.*train\.num_ranks is 2"):
        compiled(ClusterSettings())
    with pytest.raises(SettingsError, match=r"adapt_text gets 1 accelerator.*num_ranks is 4"):
        compiled(ClusterSettings(gpus={"train": 2}), adapt_text={"num_ranks": 4})
    assert compiled(ClusterSettings(gpus={"train": 0, "adapt_text": 0}))  # a cluster of CPUs


def test_a_stage_takes_the_checkpoint_of_the_stage_before(parts):
    inner = tasks(parts[0])
    assert [inner[name]["taskInfo"]["name"] for name in ("train", "train-2")] == [
        "train align",
        "train refine",
    ]
    parents = {
        name: task["inputs"]["artifacts"]["parent"]["taskOutputArtifact"]["producerTask"]
        for name, task in inner.items()
        if "parent" in task["inputs"].get("artifacts", {})
    }
    assert parents == {"train": "init-model", "train-2": "train", "evaluate": "init-model"}
    final = inner["evaluate"]["inputs"]["artifacts"]["checkpoint"]["taskOutputArtifact"]
    assert final["producerTask"] == "train-2"


def test_only_what_depends_on_its_inputs_alone_is_cached(parts):
    cached = {
        name: task["cachingOptions"].get("enableCache", False)
        for name, task in tasks(parts[0]).items()
        if "cachingOptions" in task
    }
    assert {name for name, is_cached in cached.items() if not is_cached} == NOT_CACHED


def test_every_task_is_retried_and_nothing_is_adapted_before_the_data_is_checked(parts):
    inner = tasks(parts[0])
    retried = {name for name, task in inner.items() if task.get("retryPolicy")}
    assert retried == set(inner) - {"exit-handler-1"}
    assert "check" in inner["adapt-text"]["dependentTasks"]


def test_the_exit_handler_runs_whatever_happened(parts):
    task = tasks(parts[0])["record-outcome"]
    assert task["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


def test_secrets_come_by_name_and_no_value_stands_in_the_file(text, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    assert "very-secret" not in compiled()
    assert "secretName: pixclip-s3" in text


def test_a_password_in_the_settings_or_the_cluster_file_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"resolve_data\.repository: the address holds"):
        compiled(resolve_data={"repository": "https://ada:hunter2@git.example/x.git"})
    path = tmp_path / "cluster.yaml"
    path.write_text("environment: {MLFLOW_TRACKING_URI: 'https://ada:hunter2@mlflow'}\n")
    with pytest.raises(SettingsError, match=r"cluster\.environment\.MLFLOW_TRACKING_URI: "):
        read_cluster(path)


def test_without_a_volume_no_state_is_kept_between_attempts():
    text = compiled(ClusterSettings(gpus={"train": 2}))
    assert "PIXCLIP_STATE_FOLDER" not in text
    assert "pvcMount" not in text


def test_another_recipe_has_other_stages():
    recipe = {"recipe": "pixclip_b16_paper"}
    overrides = {"train": recipe, "init_model": recipe}
    spec, *_ = yaml.safe_load_all(compiled(**overrides))
    assert [name for name in tasks(spec) if name.startswith("train")] == ["train"]


def test_a_wrong_setting_is_refused_before_anything_is_compiled(tmp_path):
    with pytest.raises(SettingsError, match=r"resolve_data\.revison: no such setting"):
        compiled(resolve_data={"revison": "main"})
    with pytest.raises(SettingsError, match=r"init_model\.recipe is 'tiny', train\.recipe is"):
        compiled(train={"recipe": "pixclip_l14"})
    only_train = tmp_path / "params.yaml"
    only_train.write_text("train: {recipe: pixclip_l14, stage: regions}\n")
    with pytest.raises(SettingsError, match=r"init_model\.recipe is 'tiny', train\.recipe is"):
        pipeline_settings(only_train, {})
    with pytest.raises(SettingsError, match="gpus: no such step in this pipeline: trian"):
        compiled(ClusterSettings(gpus={"trian": 2}))


def test_a_single_stage_cannot_be_asked_of_a_pipeline_that_trains_all():
    with pytest.raises(SettingsError, match=r"train\.stage cannot be set here"):
        pipeline_settings(PARAMS, {"train": {"stage": "align"}})


def test_a_wrong_cluster_file_is_told_by_field(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("gpu_pool: {memroy: 3Gi}\nretries: -1\n")
    with pytest.raises(SettingsError, match=r"gpu_pool\.memroy.*; retries: .*got -1"):
        read_cluster(path)
