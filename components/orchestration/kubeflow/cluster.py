"""What a cluster adds to a pipeline's tasks: node pools, accelerators, memory, volumes, secrets.

`cluster.yaml` holds these settings, apart from those of the steps: none of them changes what a step
makes. A secret is named here, never written down.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import SettingsError
from components.core.run import VARIABLE as STATE_VARIABLE
from components.core.settings import read_settings_file, refuse_credentials
from components.core.step import Step

STATE_PATH = "/state"
SHARED_MEMORY_PATH = "/dev/shm"  # noqa: S108  # where torch's workers pass tensors


class Section(BaseModel):
    """Base of the sections: frozen, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Toleration(Section):
    """A taint that a pool's tasks may run under."""

    key: str = Field(description="key of the taint")
    operator: Literal["Exists", "Equal"] = Field("Exists", description="how the value is compared")
    value: str = Field("", description="value of the taint, for Equal")
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"] = Field(
        "NoSchedule", description="effect of the taint"
    )


class Pool(Section):
    """The nodes that a kind of task runs on, and what a task may use of one."""

    node_selector: dict[str, str] = Field({}, description="labels that a node must have")
    tolerations: tuple[Toleration, ...] = Field((), description="taints that are accepted")
    cpu: str = Field("4", description="cores a task asks for")
    memory: str = Field("16Gi", description="memory a task asks for, which is also its limit")


class Secret(Section):
    """Keys of a Kubernetes secret as environment variables."""

    name: str = Field(description="name of the secret in the pipeline's namespace")
    keys: dict[str, str] = Field(description="key of the secret -> environment variable")


class ClusterSettings(Section):
    """Everything a cluster decides about the pipeline's tasks."""

    cpu_pool: Pool = Field(Pool(), description="where steps without a GPU run")
    gpu_pool: Pool = Field(
        Pool(
            node_selector={"pool": "gpu"},
            tolerations=(Toleration(key="nvidia.com/gpu"),),
            cpu="16",
            memory="96Gi",
        ),
        description="where steps with a GPU run",
    )
    accelerator: str = Field("nvidia.com/gpu", description="resource name of the accelerators")
    gpus: dict[str, int] = Field(
        {}, description="step -> accelerators, where a step gets more than one, or none (0)"
    )
    shared_memory: str = Field("16Gi", description="size of /dev/shm of a task with a GPU")
    state_claim: str = Field(
        "",
        description="persistent volume claim (ReadWriteMany) on which killed tasks find their work "
        "again; empty: a retry starts anew",
    )
    secrets: tuple[Secret, ...] = Field((), description="secrets that every task gets")
    environment: dict[str, str] = Field(
        {}, description="variables that every task gets, e.g. MLFLOW_TRACKING_URI; no secrets"
    )
    image_pull_secret: str = Field("", description="secret to pull the images with")
    retries: int = Field(2, ge=0, description="further attempts of a failed task")


def read_cluster(path: Path) -> ClusterSettings:
    """The settings in a YAML file.

    Raises:
        SettingsError: names the field, the rule and the value.
    """
    content = read_settings_file(path, "cluster")
    try:
        cluster = ClusterSettings.model_validate(content)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}, got {item['input']!r}"
            for item in error.errors()
        ]
        raise SettingsError(f"{path}: {'; '.join(wrong)}") from None
    refuse_credentials(content, path.stem)
    return cluster


def place(task: Any, step: Step | None, cluster: ClusterSettings) -> Any:
    """Put a task of a pipeline where its step belongs; gives the task.

    `step` is None for the pipeline's own small tasks.
    """
    task.set_retry(cluster.retries, backoff_duration="30s", backoff_factor=2.0)
    num_gpus = cluster.gpus.get(step.name, step.gpus) if step else 0
    _use_pool(task, cluster.gpu_pool if num_gpus else cluster.cpu_pool)
    if num_gpus:
        _use_accelerators(task, num_gpus, cluster)
    if step and cluster.state_claim and step.is_pure:
        use_state(task, cluster)
    _use_environment(task, cluster)
    return task


def use_state(task: Any, cluster: ClusterSettings) -> None:
    """Mount the volume on which killed tasks find their work again."""
    from kfp import kubernetes

    kubernetes.mount_pvc(task, pvc_name=cluster.state_claim, mount_path=STATE_PATH)
    task.set_env_variable(STATE_VARIABLE, STATE_PATH)


def _use_pool(task: Any, pool: Pool) -> None:
    from kfp import kubernetes

    for key, value in pool.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in pool.tolerations:
        kubernetes.add_toleration(
            task,
            key=toleration.key,
            operator=toleration.operator,
            value=toleration.value or None,
            effect=toleration.effect,
        )
    task.set_cpu_request(pool.cpu)
    task.set_memory_request(pool.memory)
    task.set_memory_limit(pool.memory)


def _use_accelerators(task: Any, num_gpus: int, cluster: ClusterSettings) -> None:
    from kfp import kubernetes

    task.set_accelerator_type(cluster.accelerator)
    task.set_accelerator_limit(num_gpus)
    # The default of 64 MB is too small for the shared memory of loaders and NCCL.
    kubernetes.empty_dir_mount(
        task,
        volume_name="shared-memory",
        mount_path=SHARED_MEMORY_PATH,
        medium="Memory",
        size_limit=cluster.shared_memory,
    )


def _use_environment(task: Any, cluster: ClusterSettings) -> None:
    from kfp import kubernetes

    for name, value in cluster.environment.items():
        task.set_env_variable(name, value)
    for secret in cluster.secrets:
        kubernetes.use_secret_as_env(
            task, secret_name=secret.name, secret_key_to_env=dict(secret.keys)
        )
    if cluster.image_pull_secret:
        kubernetes.set_image_pull_secrets(task, [cluster.image_pull_secret])
