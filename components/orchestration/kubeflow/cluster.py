"""What a cluster adds to a pipeline's tasks: nodes, accelerators, images, volumes, secrets, limits.

`cluster.yaml` holds these settings, apart from those of the steps: none of them changes what a step
makes, and `settings` only says where things are. A secret is named here, never written down.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.core.errors import SettingsError
from components.core.kubeflow import image
from components.core.process import OWN_S3, S3
from components.core.settings import read_settings_file, refuse_credentials
from components.core.state import VARIABLE as STATE_VARIABLE
from components.core.step import Step
from components.core.trainjob import RESERVED, JobPlace
from components.core.trainjob import VARIABLE as JOB_VARIABLE

STATE_PATH = "/state"
HOUR_S, DAY_S = 3600, 24 * 3600
# Argo counts a retry's last moment from the start of the first attempt, and kills what runs then.
RETRY_FOR = "4w"
IMAGE_BY_DIGEST = re.compile(r"\S+@(sha256:[0-9a-f]{64})")
RUN_ID_VARIABLE, RUN_ID_FIELD = "PIXCLIP_KFP_RUN_ID", "metadata.labels['pipeline/runid']"
DIGEST_VARIABLE = "PIXCLIP_IMAGE_DIGEST"
LAUNCHERS = "AWS_"  # variables of a task that its launcher takes for its own
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


def _not_the_launcher_s(name: str) -> str:
    if name.startswith(LAUNCHERS):
        raise ValueError(
            f"{name} would become that of the task's launcher, which carries the artifacts; name "
            f"it PIXCLIP_S3_{name.removeprefix(LAUNCHERS)}: steps hand that to their S3 clients"
        )
    return name


def _by_digest(name: str) -> str:
    if not IMAGE_BY_DIGEST.fullmatch(name):
        raise ValueError("an image is named by its digest: <repository>@sha256:<64 hex digits>")
    return name


Variable = Annotated[str, AfterValidator(_not_the_launcher_s)]
ImageByDigest = Annotated[str, AfterValidator(_by_digest)]


class Secret(Section):
    """Keys of a Kubernetes secret as environment variables of the steps that need them."""

    name: str = Field(description="name of the secret in the pipeline's namespace")
    steps: tuple[str, ...] = Field(min_length=1, description="steps whose tasks get it")
    keys: dict[str, Variable] = Field(description="key of the secret -> environment variable")


class TrainingJobs(Section):
    """What TrainJobs of Kubeflow Trainer have in common, beside what `deploy/` installs."""

    runtime: str = Field("pixclip-torch", description="their ClusterTrainingRuntime")
    namespace: str = Field("", description="where they run; empty: where the pipeline does")
    queue: str = Field("", description="LocalQueue of Kueue; empty: they start at once")
    priority: str = Field("", description="WorkloadPriorityClass of Kueue")
    cpu: str = Field("", description="cores that a node's pod asks for; empty: the pool's")
    memory: str = Field("", description="memory that it asks for; empty: the pool's")


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
    nodes: dict[str, int] = Field(
        {},
        description="step -> nodes: its ranks run there as a TrainJob, num_ranks of them all "
        "together, and its own task needs no accelerator; `gpus` then counts those of a node",
    )
    training_jobs: TrainingJobs = Field(TrainingJobs(), description="of the steps in `nodes`")
    shared_memory: str = Field("16Gi", description="size of /dev/shm of a task with a GPU")
    state_claim: str = Field(
        "",
        description="persistent volume claim (ReadWriteMany) on which killed tasks find their work "
        "again; empty: a retry starts anew",
    )
    images: dict[Literal["data", "train"], ImageByDigest] = Field(
        {},
        description="image -> its name by digest; empty: by PIXCLIP_IMAGE_REPOSITORY and _TAG, and "
        "then nothing is cached, since a tag moves",
    )
    settings: dict[str, dict[str, Any]] = Field(
        {}, description="step -> where things are on this cluster; wins over the params file"
    )
    pinned_data: bool = Field(
        True,
        description="who starts a run names the full commit of the data, so that resolve_data is "
        "cached; false: it looks each time, and every run does all tasks anew",
    )
    secrets: tuple[Secret, ...] = Field((), description="secrets, and the steps that get them")
    environment: dict[Variable, str] = Field(
        {}, description="variables that every task gets, e.g. MLFLOW_TRACKING_URI; no secrets"
    )
    image_pull_secret: str = Field(
        "", pattern=r"^[a-z0-9.-]*$", description="name of the secret to pull the images with"
    )
    retries: int = Field(2, ge=0, description="further attempts of a failed task")
    task_hours: float = Field(24.0, gt=0, description="time limit of an attempt of a task")
    hours: dict[str, float] = Field({}, description="step -> time limit, where it is another")
    run_days: float = Field(28.0, gt=0, le=28, description="time limit of a run")
    ttl_days: float = Field(30.0, gt=0, description="how long the workflow of an ended run is kept")
    keep_days: int = Field(14, ge=1, description="how long unused work stays in the state claim")
    keep_pointed_days: int = Field(
        0,
        ge=0,
        description="the same of what cached tasks may point to: longer than Kubeflow's cache "
        "lives; 0: for ever",
    )

    def image(self, name: str) -> str:
        """The full name of an image."""
        return next((full for known, full in self.images.items() if known == name), image(name))

    def image_digest(self, name: str) -> str:
        """The digest of an image; empty if a tag names it."""
        found = IMAGE_BY_DIGEST.fullmatch(self.image(name))
        return found[1] if found else ""

    def named_steps(self) -> dict[str, Iterable[str]]:
        """Setting -> the steps that it names."""
        secrets = {f"secrets.{secret.name}.steps": secret.steps for secret in self.secrets}
        return {
            "gpus": self.gpus,
            "nodes": self.nodes,
            "hours": self.hours,
            "settings": self.settings,
            **secrets,
        }

    @model_validator(mode="after")
    def _nodes_can_be_used(self) -> "ClusterSettings":
        wrong = sorted(step for step, number in self.nodes.items() if number < 1)
        if wrong:
            raise ValueError(f"nodes: {wrong[0]} must have at least 1 node")
        if self.nodes and not self.state_claim:
            raise ValueError(
                "nodes needs state_claim: the nodes read their job from it, and save their state"
            )
        reserved = sorted(name for name in self.environment if name.startswith(RESERVED))
        if self.nodes and reserved:
            raise ValueError(f"environment: {reserved[0]} is set by Kubeflow Trainer itself")
        return self


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
            if item["loc"]
            else item["msg"].removeprefix("Value error, ")
            for item in error.errors()
        ]
        raise SettingsError(f"{path}: {'; '.join(wrong)}") from None
    # Of a secret to pull with only the name can stand there.
    named = {name: value for name, value in content.items() if name != "image_pull_secret"}
    refuse_credentials(named, path.stem)
    return cluster


def place(task: Any, step: Step | None, cluster: ClusterSettings) -> Any:
    """Put a task of a pipeline where its step belongs; gives the task.

    `step` is None for the pipeline's own small tasks, which run in the image `data`.
    """
    from kfp import kubernetes

    name = step.image if step else "data"
    task.set_container_image(cluster.image(name))
    task.set_retry(
        cluster.retries,
        backoff_duration="30s",
        backoff_factor=2.0,
        backoff_max_duration=RETRY_FOR,
    )
    job = job_place_of(step, cluster) if step else None
    # Time that a queue keeps a job waiting is not the task's.
    usual = cluster.run_days * DAY_S / HOUR_S if job else cluster.task_hours
    hours = cluster.hours.get(step.name, usual) if step else 1.0
    kubernetes.set_timeout(task, round(hours * HOUR_S))
    num_gpus = cluster.gpus.get(step.name, step.gpus) if step and not job else 0
    _use_pool(task, cluster.gpu_pool if num_gpus else cluster.cpu_pool)
    if num_gpus:
        _use_accelerators(task, num_gpus, cluster)
    if step and cluster.state_claim:
        use_state(task, cluster)
    _use_environment(task, step, cluster)
    if job:
        task.set_env_variable(JOB_VARIABLE, job.model_dump_json(exclude_defaults=True))
    return task


def job_place_of(step: Step, cluster: ClusterSettings) -> JobPlace | None:
    """Where the ranks of a step run, if not in its own task."""
    if step.name not in cluster.nodes:
        return None
    num_gpus = cluster.gpus.get(step.name, step.gpus)
    pool = cluster.gpu_pool if num_gpus else cluster.cpu_pool
    return JobPlace(
        step=step.name,
        image=cluster.image(step.image),
        num_nodes=cluster.nodes[step.name],
        **cluster.training_jobs.model_dump(exclude={"cpu", "memory"}),
        state_claim=cluster.state_claim,
        state_path=STATE_PATH,
        cpu=cluster.training_jobs.cpu or pool.cpu,
        memory=cluster.training_jobs.memory or pool.memory,
        accelerator=cluster.accelerator,
        num_accelerators=num_gpus,
        shared_memory=cluster.shared_memory,
        node_selector=pool.node_selector,
        tolerations=tuple(
            {name: value for name, value in one.model_dump().items() if value}
            for one in pool.tolerations
        ),
        environment=cluster.environment,
        secrets={
            # No launcher runs beside ranks.
            variable.replace(OWN_S3, S3): (secret.name, key)
            for secret in cluster.secrets
            if step.name in secret.steps
            for key, variable in secret.keys.items()
        },
        image_pull_secret=cluster.image_pull_secret,
    )


def use_state(task: Any, cluster: ClusterSettings) -> None:
    """Mount the volume on which killed tasks find their work again, and pointers lead to."""
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


def _use_environment(task: Any, step: Step | None, cluster: ClusterSettings) -> None:
    from kfp import kubernetes

    for name, value in cluster.environment.items():
        task.set_env_variable(name, value)
    digest = cluster.image_digest(step.image) if step else ""
    if digest:
        task.set_env_variable(DIGEST_VARIABLE, digest)
    if step:
        kubernetes.use_field_path_as_env(task, RUN_ID_VARIABLE, RUN_ID_FIELD)
    for secret in cluster.secrets:
        if step and step.name in secret.steps:
            kubernetes.use_secret_as_env(
                task, secret_name=secret.name, secret_key_to_env=dict(secret.keys)
            )
    if cluster.image_pull_secret:
        kubernetes.set_image_pull_secrets(task, [cluster.image_pull_secret])
