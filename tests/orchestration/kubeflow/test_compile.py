"""The compiled pipeline: what Kubeflow is given."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import components
from pydantic import ValidationError

from components.core.errors import SettingsError
from components.core.settings import merge
from components.core.step import load_step
from components.core.trainjob import JobPlace
from components.orchestration.kubeflow.checks import check_run, foreign_places
from components.orchestration.kubeflow.cluster import ClusterSettings, read_cluster
from components.orchestration.kubeflow.compile import (
    compile_pipeline,
    pipeline_arguments,
    pipeline_settings,
)
from components.orchestration.kubeflow.outcome import succeeded, told
from components.orchestration.kubeflow.paclip_train import PACLIP_TRAIN
from components.orchestration.kubeflow.pipelines import PIPELINES
from components.orchestration.kubeflow.pixclip_train import PIXCLIP_TRAIN

ROOT = Path(__file__).parents[3]
STEPS, PARAMS = PIXCLIP_TRAIN.steps, ROOT / PIXCLIP_TRAIN.params_file
FOLDER = Path(__file__).parent
# Golden file -> the pipeline and the cluster file that it is compiled for.
GOLDEN = {
    "pixclip-train-local": (PIXCLIP_TRAIN, ""),
    "pixclip-train-small": (PIXCLIP_TRAIN, "deploy/small/cluster.yaml"),
    "pixclip-train": (PIXCLIP_TRAIN, "cluster.yaml"),
    "paclip-train-local": (PACLIP_TRAIN, ""),
    "paclip-train": (PACLIP_TRAIN, "cluster.yaml"),
}
NOT_CACHED = {"check-settings", "register", "promote", "record-outcome"}
DIGEST = {"data": f"sha256:{'a' * 64}", "train": f"sha256:{'b' * 64}"}
IMAGES = {name: f"registry.example/team/pixclip-{name}@{at}" for name, at in DIGEST.items()}
# What every cluster must say: where things are.
PLACES = {
    "resolve_data": {"repository": "https://git.example/team/data.git"},
    "adapt_text": {"base_model": "org/model"},
}
TOLD: dict[str, Any] = {
    "settings": PLACES,
    "environment": {"MLFLOW_TRACKING_URI": "http://mlflow:5000"},
    "images": IMAGES,
}


def cluster(**own: Any) -> ClusterSettings:
    """A cluster of which only some things are said, and two accelerators for `train`."""
    return ClusterSettings(**{"gpus": {"train": 2}, **TOLD, **own})


def committed(name: str) -> ClusterSettings:
    """A committed cluster file, with images by digest as one names them after building."""
    return read_cluster(ROOT / name).model_copy(update={"images": IMAGES})


def compiled(on: ClusterSettings | None = None, **overrides: Any) -> str:
    on = on or committed("cluster.yaml")
    settings = pipeline_settings(PIXCLIP_TRAIN, overrides, on)
    return compile_pipeline(PIXCLIP_TRAIN, settings, on)


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


@pytest.mark.parametrize("name", GOLDEN)
def test_the_pipeline_is_the_one_we_know(name):
    """After a wanted change, write it anew: `make golden` (UPDATE_GOLDEN=1)."""
    pipeline, file = GOLDEN[name]
    on = committed(file) if file else None
    text = compile_pipeline(pipeline, pipeline_settings(pipeline, {}, on), on)
    path = FOLDER / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


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
        own = yaml.safe_load((ROOT / "cluster.yaml").read_text())["settings"].get(step, {})
        assert yaml.safe_load(defaults[step]["defaultValue"]) == {**section, **own}


def test_tasks_with_a_gpu_have_accelerators_pool_and_shared_memory_and_others_none(parts):
    spec, platform = parts
    for name, container in executors(spec).items():
        step = step_of(name)
        needs_gpu = step in STEPS and load_step(step).gpus > 0
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
        compiled(cluster(gpus={"train": 8}))
    assert compiled(cluster(gpus={"train": 8, "evaluate": 1}), train={"num_ranks": 8})


def test_ranks_without_an_accelerator_are_refused():
    with pytest.raises(SettingsError, match=r"train gets 1 accelerator.*train\.num_ranks is 2"):
        compiled(cluster(gpus={}))
    with pytest.raises(SettingsError, match=r"adapt_text gets 1 accelerator.*num_ranks is 4"):
        compiled(cluster(), adapt_text={"num_ranks": 4})
    assert compiled(cluster(gpus={"train": 0, "adapt_text": 0}))  # a cluster of CPUs


ON_NODES = cluster(
    nodes={"train": 2, "adapt_text": 1}, gpus={"train": 8}, state_claim="pixclip-state"
)


def test_a_step_on_nodes_is_looked_after_by_a_task_without_accelerators():
    text = compiled(ON_NODES, train={"num_ranks": 16, "changes": {"data.batch_size": 64}})
    spec, platform = yaml.safe_load_all(text)
    containers = executors(spec)
    for name in ("exec-train", "exec-train-2", "exec-adapt-text"):
        given = {one["name"]: one["value"] for one in containers[name]["env"]}
        place = JobPlace.model_validate_json(given["PIXCLIP_TRAINJOB"])
        is_train = name != "exec-adapt-text"
        assert (place.num_nodes, place.num_accelerators) == ((2, 8) if is_train else (1, 1))
        assert place.image == containers[name]["image"]
        assert "accelerator" not in containers[name]["resources"]
        selectors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][name]
        assert "nodeSelector" not in selectors  # the pool of CPUs, which names none here
        assert place.node_selector == {"pool": "gpu"}
    assert "PIXCLIP_TRAINJOB" not in json.dumps(containers["exec-evaluate"])


@pytest.mark.parametrize(
    ("changes", "num_ranks", "message"),
    [
        ({}, 8, r"train gets 16 accelerator\(s\), but train\.num_ranks is 8"),
        ({"nodes": {"train": 3}}, 8, r"num_ranks is 8, which 3 nodes cannot share evenly"),
        ({"nodes": {"evaluate": 2}}, 8, r"nodes: evaluate has no ranks"),
        ({"nodes": {"trian": 2}}, 8, r"nodes: no such step in any pipeline: trian"),
    ],
)
def test_nodes_that_no_rank_would_use_are_refused(changes, num_ranks, message):
    with pytest.raises(SettingsError, match=message):
        compiled(ON_NODES.model_copy(update=changes), train={"num_ranks": num_ranks})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: {train: 2}", r"cluster.yaml: nodes needs state_claim: the nodes read"),
        ("nodes: {train: 0}\nstate_claim: s", r"nodes: train must have at least 1 node"),
        (
            "nodes: {train: 1}\nstate_claim: s\nenvironment: {PET_NNODES: '2'}",
            r"environment: PET_NNODES is set by Kubeflow Trainer itself",
        ),
    ],
)
def test_a_cluster_file_whose_nodes_cannot_be_used_is_refused(tmp_path, text, message):
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_cluster(tmp_path / "cluster.yaml")


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
    assert "maxRetryCount" not in inner["check-settings"]["retryPolicy"]
    assert "check" in inner["adapt-text"]["dependentTasks"]


def test_the_exit_handler_runs_whatever_happened(parts):
    task = tasks(parts[0])["record-outcome"]
    assert task["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


def caching(text: str) -> set[str]:
    """The tasks that Kubeflow may take from its cache."""
    spec, *_ = yaml.safe_load_all(text)
    return {
        name
        for name, task in tasks(spec).items()
        if task.get("cachingOptions", {}).get("enableCache")
    }


def test_images_are_named_by_digest_and_the_version_in_the_registry_learns_which(parts):
    for name, container in executors(parts[0]).items():
        step = step_of(name)
        kind = load_step(step).image if step in STEPS else "data"
        assert container["image"] == IMAGES[kind], name
        env = {variable["name"]: variable["value"] for variable in container.get("env", [])}
        assert env.get("PIXCLIP_IMAGE_DIGEST") == (DIGEST[kind] if step in STEPS else None)


def test_a_tag_moves_so_nothing_is_cached_by_one():
    assert caching(compiled(cluster(images={}))) == set()
    with pytest.raises(ValidationError, match=r"by its digest: <repository>@sha256"):
        cluster(images={"data": "registry.example/team/pixclip-data:1.0"})


def test_data_that_may_be_another_tomorrow_is_not_cached():
    assert "resolve-data" in caching(compiled(cluster()))
    assert "resolve-data" not in caching(compiled(cluster(pinned_data=False)))
    commit = {"resolve_data": {"revision": "c" * 40}}
    assert "resolve-data" in caching(compiled(cluster(pinned_data=False), **commit))


def arguments(**changes: dict[str, Any]) -> dict[str, str]:
    """What a run on a cluster is started with."""
    pinned = {"resolve_data": {"revision": "c" * 40}}
    settings = pipeline_settings(PIXCLIP_TRAIN, merge(pinned, changes), cluster())
    return pipeline_arguments(settings)


def test_the_first_task_checks_the_settings_of_all_steps_before_anything_is_fetched(parts):
    inner = tasks(parts[0])
    assert inner["resolve-data"]["dependentTasks"] == ["check-settings"]
    assert set(inner["check-settings"]["inputs"]["parameters"]) == {*STEPS, "pinned_data"}
    assert "dependentTasks" not in inner["check-settings"]
    check_run(arguments(), pinned_data=True)


def test_every_pipeline_s_first_task_takes_the_settings_of_all_its_steps():
    for pipeline in PIPELINES.values():
        on = committed("cluster.yaml")
        text = compile_pipeline(pipeline, pipeline_settings(pipeline, {}, on), on)
        first = tasks(next(yaml.safe_load_all(text)))["check-settings"]
        assert set(first["inputs"]["parameters"]) == {*pipeline.steps, "pinned_data"}


def test_the_first_task_checks_a_training_of_parts_for_every_stage():
    pinned = {"resolve_data": {"revision": "c" * 40}}
    settings = pipeline_settings(PACLIP_TRAIN, pinned, cluster())
    given = pipeline_arguments(settings)
    check_run(given, pinned_data=True)
    given["train_parts"] = json.dumps({**settings["train_parts"], "changes": {"losses.beta": 1}})
    with pytest.raises(SettingsError, match=r"train_parts.*losses\.beta"):
        check_run(given, pinned_data=True)


@pytest.mark.parametrize(
    ("step", "change", "message"),
    [
        ("promote", {"min_samples": "few"}, r"promote\.min_samples: .*'few'"),
        ("evaluate", {"num_map": 1}, r"evaluate\.num_map: no such setting"),
        ("resolve_data", {"revision": "main"}, r"revision main may be another data set tomorrow"),
        ("resolve_data", {"uri": "s3://b/p"}, r"resolve_data: s3://b/p may be another"),
        ("adapt_text", {"base_model": "/home/ada/tower"}, r"base_model: /home/ada/tower is a path"),
        ("init_model", {"weights": "x/clip.pt", "format": "openai"}, r"weights: x/clip\.pt is a p"),
    ],
)
def test_a_run_with_a_wrong_setting_fails_at_its_first_task(step, change, message):
    given = arguments()
    given[step] = json.dumps({**json.loads(given[step]), **change})
    with pytest.raises(SettingsError, match=message):
        check_run(given, pinned_data=True)


def test_all_that_is_wrong_is_told_at_once():
    given = arguments()
    given["promote"], given["check"] = '{"min_sample": 1}', '{"artefact": "x"}'
    with pytest.raises(SettingsError, match=r"check\.artefact.*; promote\.min_sample"):
        check_run(given, pinned_data=True)


def test_the_settings_are_checked_without_what_the_small_image_lacks():
    code = (
        "import sys, json; sys.modules |= dict.fromkeys(['torch', 'mlflow', 'dvc', 'transformers',"
        "'deepspeed', 'peft']); from components.orchestration.kubeflow.checks import check_run; "
        "check_run(json.load(sys.stdin), pinned_data=True)"
    )
    given = json.dumps(arguments())
    subprocess.run([sys.executable, "-c", code], input=given, text=True, check=True)


def test_a_laptop_s_paths_are_refused_where_a_cluster_is_named():
    with pytest.raises(SettingsError, match=r"repository: runs/repository is a path .*base_model"):
        compiled(cluster(settings={}))
    with pytest.raises(SettingsError, match=r"train\.tracking_uri is empty.*MLFLOW_TRACKING_URI"):
        compiled(cluster(environment={}))


@pytest.mark.parametrize(
    ("place", "is_seen"),
    [
        ("https://git.example/team/data.git", True),
        ("git@git.example:team/data.git", True),
        ("ssh://git@git.example/data.git", True),
        ("/state/repository", True),
        ("file:///srv/data.git", False),
        ("/srv/data", False),
        ("team/data.git", False),
    ],
)
def test_a_pod_sees_addresses_and_the_state_volume(place, is_seen):
    told = foreign_places({"resolve_data": {"repository": place}})
    assert (told == []) == is_seen


def test_a_model_may_be_one_of_the_hub_unless_a_folder_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = {"adapt_text": {"base_model": "org/model-1.5"}}
    assert foreign_places(model) == []
    Path("org/model-1.5").mkdir(parents=True)
    assert foreign_places(model)


def test_a_task_is_retried_for_weeks_and_by_no_policy_that_kubeflow_would_not_take(parts):
    long = (name.replace("_", "-") for name in STEPS)
    for task in (tasks(parts[0])[name] for name in long):
        policy = task["retryPolicy"]
        # Argo counts it from the start of the first attempt.
        assert int(policy["backoffMaxDuration"].removesuffix("s")) == 28 * 24 * 3600
        # Of the kind of failure nothing is said: Argo retries no preempted pod (docs/cluster.md).
        assert set(policy) == {
            *("maxRetryCount", "backoffDuration", "backoffFactor", "backoffMaxDuration"),
        }


def test_every_task_and_the_run_have_a_time_limit_and_an_ended_run_is_removed(text, parts):
    limits = {name: own["activeDeadlineSeconds"] for name, own in parts[1].items()}
    assert set(limits) == set(executors(parts[0]))
    assert int(limits["exec-train"]) == 168 * 3600
    assert int(limits["exec-check-settings"]) == 3600
    _, platform = yaml.safe_load_all(text)
    config = platform["platforms"]["kubernetes"]["pipelineConfig"]
    assert config == {"activeDeadlineSeconds": 28 * 86400, "resourceTtlOnCompletion": 30 * 86400}


def test_secrets_reach_only_the_steps_that_need_them(parts):
    given = {name for name, own in parts[1].items() if own.get("secretAsEnv")}
    assert given == {"exec-resolve-data"}


def test_a_variable_that_would_be_the_launcher_s_is_refused(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "environment: {AWS_ENDPOINT_URL: 'http://s3'}\n"
        "secrets: [{name: s, steps: [train], keys: {k: AWS_ACCESS_KEY_ID}}]\n"
    )
    with pytest.raises(
        SettingsError, match=r"(?s)PIXCLIP_S3_ACCESS_KEY_ID.*PIXCLIP_S3_ENDPOINT_URL"
    ):
        read_cluster(path)


def test_every_step_learns_the_run_it_belongs_to_and_sees_the_state_volume(parts):
    for name, own in parts[1].items():
        if step_of(name) in STEPS:
            assert own["fieldPathAsEnv"] == [
                {"name": "PIXCLIP_KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}
            ]
            assert own["pvcMount"][0]["mountPath"] == "/state", name


@pytest.mark.parametrize(
    ("state", "is_good", "line"),
    [
        ("COMPLETE", True, "pipeline COMPLETE"),
        ("SUCCEEDED", True, "pipeline SUCCEEDED"),
        ("FAILED", False, "pipeline FAILED at task train: it broke"),
        ("RUNNING", None, "Kubeflow says RUNNING, which tells nothing"),
    ],
)
def test_the_end_of_a_run_is_read_from_kubeflow_s_words(state, is_good, line):
    assert succeeded(state) is is_good
    assert line in told(state, "train", "it broke" if state == "FAILED" else "")


def test_the_pipeline_s_own_tasks_run_in_the_small_image(parts):
    containers = executors(parts[0])
    for name in ("exec-check-settings", "exec-record-outcome"):
        assert containers[name]["image"] == IMAGES["data"]


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
    text = compiled(cluster())
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
        pipeline_settings(PIXCLIP_TRAIN, {}, params_file=only_train)
    with pytest.raises(SettingsError, match="gpus: no such step in any pipeline: trian"):
        compiled(cluster(gpus={"trian": 2}))
    secret = {"name": "s", "steps": ["resolve"], "keys": {}}
    with pytest.raises(SettingsError, match=r"secrets\.s\.steps: no such step .*: resolve"):
        compiled(cluster(secrets=[secret]))


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=lambda one: one.name)
def test_a_pipeline_and_its_start_model_follow_one_recipe(pipeline):
    known = [name for name in pipeline.recipes if "tiny" not in name]
    begun = rf"init_model\.recipe is '{known[0]}', {pipeline.trains}\.recipe is '\w*tiny'"
    with pytest.raises(SettingsError, match=begun):
        pipeline_settings(pipeline, {"init_model": {"recipe": known[0]}})
    with pytest.raises(SettingsError, match=rf"{pipeline.trains}\.recipe: no recipe 'huge'"):
        pipeline_settings(pipeline, {pipeline.trains: {"recipe": "huge"}})


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=lambda one: one.name)
def test_a_single_stage_cannot_be_asked_of_a_pipeline_that_trains_all(pipeline):
    stage, *_ = pipeline.stages(pipeline.recipe(pipeline_settings(pipeline, {})))
    with pytest.raises(SettingsError, match=rf"{pipeline.trains}\.stage cannot be set here"):
        pipeline_settings(pipeline, {pipeline.trains: {"stage": stage}})


def test_a_recipe_of_the_other_pipeline_is_refused():
    for pipeline, other in ((PIXCLIP_TRAIN, PACLIP_TRAIN), (PACLIP_TRAIN, PIXCLIP_TRAIN)):
        recipe = {"recipe": next(iter(other.recipes))}
        with pytest.raises(SettingsError, match=rf"{pipeline.trains}\.recipe: no recipe"):
            pipeline_settings(pipeline, {pipeline.trains: recipe, "init_model": recipe})


def test_a_wrong_cluster_file_is_told_by_field(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("gpu_pool: {memroy: 3Gi}\nretries: -1\n")
    with pytest.raises(SettingsError, match=r"gpu_pool\.memroy.*; retries: .*got -1"):
        read_cluster(path)
