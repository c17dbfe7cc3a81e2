"""Register the checkpoint in the MLflow registry as the candidate.

Its lineage becomes tags of the version; the model card has its data, recipe, numbers and limits.

pixclip register --checkpoint runs/demo/checkpoint --evaluation runs/demo/evaluation \
    --registration runs/demo/registration
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from components.core.digests import RECEIPT_NAME, file_digests, file_sha256, sha256_text
from components.core.errors import InputError
from components.core.files import link_or_copy
from components.core.pages import template
from components.core.receipts import read_receipt
from components.core.step import In, Metrics, Out, StepSettings, runtime, step
from components.core.tables import WORK_FOLDER
from components.registry.evaluations import read_evaluation_whole
from components.registry.models import NAME_PATTERN, WEIGHTS_TAG
from pixclip.checksums import (
    WEIGHTS_NAME,
    CheckpointError,
    read_checksums,
    verify,
    weights_digest,
)
from pixclip.data.layout import CARD_NAME
from pixclip.evaluation.protocol import ALL, FGPART_PARTS, SCENE_ACCURACY, SUBSETS, Question

REGISTRATION_NAME = "registration.json"
EVALUATION_FOLDER = "evaluation"
EVALUATION_FILES = ("evaluation.json", "samples.parquet", "images.parquet")
PAGE_NAME = "evaluation.html"
MAIN_NUMBERS = tuple(
    f"{ALL}.{metric}"
    for metric in (
        SCENE_ACCURACY,
        Question.MASK_TO_TEXT.recall_at(1),
        Question.TEXT_TO_MASK.recall_at(1),
    )
)


def git_commit() -> str | None:
    """The commit of the checkout this code is in, `+changes` if files differ from it."""
    folder = Path(__file__).parent
    described = _git(folder, "describe", "--always", "--abbrev=40", "--dirty=+changes")
    return described or None


class RegisterSettings(StepSettings):
    """Under which name, and what is known of the model's origin."""

    model: str = Field("pixclip", pattern=NAME_PATTERN, description="name in the registry")
    recipe: str = Field(
        "", description="recipe of the training; empty: as the checkpoint's receipt says"
    )
    stage: str = Field(
        "", description="last stage of the training; empty: as the checkpoint's receipt says"
    )
    data_revision: str = Field(
        "",
        description="DVC revision of the data: the commit of its repository; empty: as the "
        "evaluation says",
    )
    is_sample: bool = Field(
        True, description="trained on the composed sample; the model card says what that means"
    )
    tracking_uri: str = Field(
        "",
        description="address of MLflow; empty: MLFLOW_TRACKING_URI, or a file below runs/mlflow",
    )
    git_commit: str = runtime(
        "", "commit of this code; empty: PIXCLIP_GIT_COMMIT, or the checkout's"
    )
    image_digest: str = runtime(
        "", "digest of the container image; empty: PIXCLIP_IMAGE_DIGEST, or none"
    )
    experiment: str = runtime("pixclip", "MLflow experiment that keeps the run", min_length=1)


# The registry may be another one by now: the step looks every time.
@step(image="train", is_pure=False, version=3)
def register(
    checkpoint: In, evaluation: In, registration: Out, settings: RegisterSettings
) -> Metrics:
    """Register the checkpoint in the MLflow registry as the candidate.

    The version's files are a plain checkpoint with its model card, its evaluation and MLflow's
    description of it. The same checkpoint with the same evaluation stays the same version.
    """
    from components.registry.model_folder import Submission, register_candidate
    from components.registry.models import Registry

    measured = evaluation_of(checkpoint, evaluation)
    tags = lineage_tags(checkpoint, measured, settings)
    folder = registration / WORK_FOLDER / "model"
    stage_model(checkpoint, evaluation, folder)
    content = _content_digest(folder)
    (folder / CARD_NAME).write_text(render_card(tags, measured, settings), encoding="utf-8")
    page = evaluation / PAGE_NAME
    submission = Submission(
        model=settings.model,
        folder=folder,
        content=content,
        tags=tags,
        metrics=measured.flat_metrics(),
        attachments=[page] if page.is_file() else [],
    )
    registry = Registry(settings.tracking_uri)
    version = register_candidate(registry, submission, settings.experiment, registration)
    shutil.rmtree(registration / WORK_FOLDER)
    facts = {"model": settings.model, "version": version.number, "content_sha256": content}
    text = json.dumps({**facts, "tags": dict(version.tags)}, indent=1, sort_keys=True)
    (registration / REGISTRATION_NAME).write_text(text + "\n", encoding="utf-8")
    return {"version": int(version.number), **_main_numbers(measured)}


def stage_model(checkpoint: Path, evaluation: Path, folder: Path) -> None:
    """A folder to be registered: the checkpoint's files, and below `evaluation/` what was measured.

    Files are hard links where the file system has them. What is generated is never linked: it is
    written anew, and must not be written through a link into the checkpoint. A fetched checkpoint
    has an evaluation of its own, which is left out: it was made elsewhere.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in file_digests(checkpoint):
        if name not in _GENERATED and not name.startswith(f"{EVALUATION_FOLDER}/"):
            _link(checkpoint / name, folder / name)
    for name in EVALUATION_FILES:
        if (evaluation / name).is_file():
            _link(evaluation / name, folder / EVALUATION_FOLDER / name)


_GENERATED = (
    RECEIPT_NAME,
    CARD_NAME,
    "MLmodel",
    "SHA256SUMS",
    "requirements.txt",
    "python_env.yaml",
)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(str(source), str(target))


def _content_digest(folder: Path) -> str:
    lines = (f"{digest}  {name}" for name, digest in sorted(file_digests(folder).items()))
    return sha256_text("\n".join(lines))


# Whose numbers the registry shows beside the model; the rest is in its evaluation/ folder.


@dataclass(frozen=True)
class Evaluation:
    """What `evaluation.json` says."""

    content: Mapping[str, Any]
    digest: str  # sha256 of the file

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """Subset -> metric -> value."""
        found: Mapping[str, Mapping[str, float]] = self.content["metrics"]
        return found

    @property
    def baselines(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """Baseline -> subset -> metric -> value."""
        found: Mapping[str, Mapping[str, Mapping[str, float]]] = self.content.get("baselines", {})
        return found

    def flat_metrics(self) -> dict[str, float]:
        """The numbers under names such as `all.scene_accuracy`."""
        return {
            f"{subset}.{name}": float(value)
            for subset in SUBSETS
            for name, value in self.metrics.get(subset, {}).items()
            if value is not None
        }


def _main_numbers(evaluation: Evaluation) -> Metrics:
    return {
        name: value for name, value in evaluation.flat_metrics().items() if name in MAIN_NUMBERS
    }


UNKNOWN = "unknown"


def lineage_tags(
    checkpoint: Path, evaluation: Evaluation, settings: RegisterSettings
) -> dict[str, str]:
    """Data, code, image, recipe and evaluation; what nobody knows is `unknown`, never left out."""
    receipt = read_receipt(checkpoint)
    trained = receipt.settings if receipt else {}
    data = evaluation.content["data"]
    known = {
        "recipe": settings.recipe or trained.get("recipe"),
        "stage": settings.stage or trained.get("stage"),
        "data_revision": settings.data_revision or _data_revision(data),
        "git_commit": settings.git_commit or os.environ.get("PIXCLIP_GIT_COMMIT") or git_commit(),
        "image_digest": settings.image_digest or os.environ.get("PIXCLIP_IMAGE_DIGEST"),
        "kubeflow_run": os.environ.get("PIXCLIP_KFP_RUN_ID"),
        WEIGHTS_TAG: evaluation.content["checkpoint"],
        "training_fingerprint": receipt.fingerprint if receipt else None,
        "protocol": evaluation.content.get("protocol"),
        "protocol_digest": evaluation.content["protocol_digest"],
        "evaluation_sha256": evaluation.digest,
        "dataset_digest": data["dataset"],
        "num_samples": data.get("num_regions"),
    }
    main = evaluation.metrics.get("all", {})
    shown = {f"all.{name}": f"{value:.4f}" for name, value in main.items() if value is not None}
    return {**{name: str(value or UNKNOWN) for name, value in known.items()}, **shown}


def _data_revision(data: Mapping[str, Any]) -> str | None:
    """The commit in the data set's `version.json`, which the evaluation keeps."""
    version = data.get("version")
    return version.get("git_commit") if isinstance(version, Mapping) else None


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            check=True,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or an installed package
        return ""
    return done.stdout.strip()


TEMPLATES = Path(__file__).parent / "templates"
# In this order, as far as the evaluation has them.
METRICS = {
    SCENE_ACCURACY: "accuracy among the regions of a scene",
    Question.MASK_TO_TEXT.recall_at(1): "mask to text R@1",
    Question.MASK_TO_TEXT.recall_at(5): "mask to text R@5",
    Question.MASK_TO_TEXT.recall_at(10): "mask to text R@10",
    Question.TEXT_TO_MASK.recall_at(1): "text to mask R@1",
    Question.TEXT_TO_MASK.recall_at(5): "text to mask R@5",
    Question.TEXT_TO_MASK.recall_at(10): "text to mask R@10",
    Question.IMAGE_TO_TEXT.recall_at(1): "whole image to text R@1",
    Question.TEXT_TO_IMAGE.recall_at(1): "text to whole image R@1",
}


def render_card(tags: Mapping[str, str], evaluation: Evaluation, settings: RegisterSettings) -> str:
    """The card as Markdown text."""
    subsets = [name for name in SUBSETS if _has(evaluation, name)]
    return template(TEMPLATES, "card.md.j2", plain=plain).render(
        tags=tags,
        settings=settings,
        data=evaluation.content["data"],
        is_of_parts=tags["protocol"] == FGPART_PARTS.id,
        dataset=_dataset(tags, evaluation),
        tables=[{"subset": name, **_table(evaluation, name)} for name in subsets],
    )


def _dataset(tags: Mapping[str, str], evaluation: Evaluation) -> str:
    """What the data are called: by their version, else by what the protocol asks about."""
    version = evaluation.content["data"].get("version")
    told = version.get("name") if isinstance(version, Mapping) else None
    name = told or ("fgpart" if tags["protocol"] == FGPART_PARTS.id else "longgrit")
    return {"longgrit": "LongGRIT", "fgpart": "FG-Part"}.get(name, str(name))


def plain(text: object) -> str:
    """A text that cannot become markup or leave its cell."""
    kept = "".join(c if c.isalnum() or c in " .,:;/@+-_=()" else " " for c in str(text))
    return " ".join(kept.split())


def _has(evaluation: Evaluation, subset: str) -> bool:
    return bool(evaluation.metrics.get(subset))


def _table(evaluation: Evaluation, subset: str) -> dict[str, Any]:
    """Columns: this model, then every baseline; a row a metric."""
    columns = {"this model": evaluation.metrics} | dict(evaluation.baselines)
    rows = []
    for metric, meaning in METRICS.items():
        values = [numbers.get(subset, {}).get(metric) for numbers in columns.values()]
        if values[0] is not None:
            shown = ["–" if value is None else f"{100 * value:.1f} %" for value in values]
            rows.append([meaning, *shown])
    return {"columns": [name.replace("_", " ") for name in columns], "rows": rows}


def evaluation_of(checkpoint: Path, evaluation: Path) -> Evaluation:
    """The evaluation in a folder, if it was made with this very checkpoint, which is whole.

    Raises:
        InputError: a file is missing or damaged, or the evaluation is of other weights.
    """
    from pixclip.evaluation.compare import EVALUATION_NAME

    weights = checkpoint / WEIGHTS_NAME
    if not weights.is_file():
        raise InputError(f"{checkpoint} is no checkpoint: it has no {WEIGHTS_NAME}; train first")
    try:
        verify(checkpoint, read_checksums(checkpoint))
        digest = weights_digest(checkpoint)
    except CheckpointError as error:
        raise InputError(str(error)) from error
    content = read_evaluation_whole(evaluation)
    of = content.get("checkpoint")
    if of != digest:
        raise InputError(
            f"{evaluation} was made with other weights (sha256 {of}) than {checkpoint} holds "
            f"({digest}); evaluate this checkpoint before it is registered"
        )
    return Evaluation(content, file_sha256(evaluation / EVALUATION_NAME))
