"""Put a checkpoint folder into the registry as a new version: an MLflow model in place."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components.registry.models import (
    CANDIDATE,
    CONTENT_TAG,
    SUMS_TAG,
    Reference,
    Registry,
    Version,
)
from components.registry.promotions import earlier_run, remember_run
from components.registry.runs import tracked_run
from components.registry.store import experiment_id, mlflow_errors, write_sums


@dataclass(frozen=True)
class Submission:
    """What is registered: a folder that may be written to, and what is known of it."""

    model: str
    folder: Path
    content: str  # digest; the same content becomes the same version
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    attachments: Sequence[Path] = field(default=())  # files kept with the run


def register_candidate(
    registry: Registry, submission: Submission, experiment: str, draft: Path
) -> Version:
    """The version of this content, made if it is new; the alias `candidate` points to it.

    A version appears whole: its files are there before it, its tags come with it. What an attempt
    that was killed has begun is gone on with.

    Args:
        draft: folder that remembers the attempt.

    Raises:
        TrackingError: MLflow refused or cannot be reached.
    """
    version = _same_content(registry, submission)
    if version:
        _end_run(registry.client, version.run_id)
    else:
        version = _new_version(registry, submission, experiment, draft)
    registry.set_alias(version.reference, CANDIDATE)
    return version


def _same_content(registry: Registry, submission: Submission) -> Version | None:
    same = registry.with_tag(submission.model, CONTENT_TAG, submission.content)
    return same[-1] if same else None


def _new_version(
    registry: Registry, submission: Submission, experiment: str, draft: Path
) -> Version:
    client = registry.client
    tags = {**submission.tags, CONTENT_TAG: submission.content}
    with tracked_run(
        f"register {submission.model}",
        tracking_uri=registry.uri,
        experiment=experiment,
        tags=tags,
        run_id=earlier_run(draft),
    ) as run:
        remember_run(draft, run.run_id)
        run.log(0, submission.metrics)
        for path in submission.attachments:
            run.artifact(path)
        with mlflow_errors(f"cannot store the files of {submission.model}"):
            logged = _logged_model(client, submission.model, run.run_id, experiment, tags)
            make_mlflow_model(submission.folder, model_id=logged.model_id, run_id=run.run_id)
            sums = write_sums(submission.folder)
            client.log_model_artifacts(logged.model_id, str(submission.folder))
            client.finalize_logged_model(logged.model_id, "READY")
        number = _create_version(client, submission.model, logged, {**tags, SUMS_TAG: sums})
    return registry.get(Reference(submission.model, number))


def _logged_model(
    client: Any, name: str, run_id: str, experiment: str, tags: Mapping[str, str]
) -> Any:
    """The place for the run's files: that of the attempt before, or a new one."""
    kept = experiment_id(client, experiment)
    found = client.search_logged_models([kept], filter_string=f"source_run_id = '{run_id}'")
    if found:
        return found[0]
    return client.create_logged_model(kept, name=name, source_run_id=run_id, tags=dict(tags))


def _end_run(client: Any, run_id: str) -> None:
    """Close the run of a version whose process was killed after it had made the version."""
    from mlflow.exceptions import MlflowException

    with mlflow_errors(f"cannot end run {run_id}"):
        try:
            if run_id and client.get_run(run_id).info.status == "RUNNING":
                client.set_terminated(run_id, "FINISHED")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # deleted by somebody
                raise


def _create_version(client: Any, model: str, logged: Any, tags: Mapping[str, str]) -> str:
    from mlflow.exceptions import MlflowException

    with mlflow_errors(f"cannot make a version of {model}"):
        try:
            client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        created = client.create_model_version(
            model,
            # Not `models:/<id>`, which MLflow would look up at its global address, not at ours.
            source=logged.artifact_location,
            run_id=logged.source_run_id,
            model_id=logged.model_id,
            tags=dict(tags),
        )
    return str(created.version)


LOADER = "components.registry.pyfunc"
ENVIRONMENT_NAME, REQUIREMENTS_NAME = "python_env.yaml", "requirements.txt"
PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "torch", "transformers")


# Make a checkpoint folder an MLflow model in place: it stays a plain checkpoint beside that.
#
# https://mlflow.org/docs/latest/ml/model/: a model is a folder with a file `MLmodel`. Ours names a
# module of this package as loader and the folder itself as data, so no code and no pickle is in it.


def make_mlflow_model(folder: Path, *, model_id: str, run_id: str) -> None:
    """Write `MLmodel` and what it names into a checkpoint folder."""
    from mlflow import pyfunc
    from mlflow.models import Model

    (folder / REQUIREMENTS_NAME).write_text(_requirements(), encoding="utf-8")
    (folder / ENVIRONMENT_NAME).write_text(
        f"python: {platform.python_version()}\ndependencies:\n- -r {REQUIREMENTS_NAME}\n",
        encoding="utf-8",
    )
    model = Model(run_id=run_id, model_uuid=model_id, model_id=model_id, signature=signature())
    pyfunc.add_to_model(model, loader_module=LOADER, python_env=ENVIRONMENT_NAME)
    model.save(str(folder / "MLmodel"))


def signature() -> Any:
    """What goes into the model and what comes out; see `pyfunc.py`."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    inputs = [
        ColSpec(kind, name, required=False)
        for name, kind in (
            ("image", DataType.binary),
            ("mask", DataType.string),
            ("text", DataType.string),
        )
    ]
    outputs = [
        ColSpec(Array(DataType.double), "image_embedding", required=False),
        ColSpec(Array(DataType.double), "text_embedding", required=False),
        ColSpec(DataType.double, "similarity", required=False),
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def _requirements() -> str:
    # This package is on no index: its name there could become a stranger's.
    own = f"# and pixclip {version('pixclip')}, from its own repository\n"
    # A local label (`2.13.0+cpu`) says where this machine got a wheel, not what is needed.
    return own + "".join(f"{name}=={version(name).partition('+')[0]}\n" for name in PACKAGES)
