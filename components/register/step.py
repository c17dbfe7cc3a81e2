"""Register the checkpoint in the MLflow registry as the candidate.

pixclip register --checkpoint runs/demo/checkpoint --evaluation runs/demo/evaluation \
    --registration runs/demo/registration
"""

import json
import shutil
from pathlib import Path

from components.kernel.digests import RECEIPT_NAME, file_digests, sha256_text
from components.kernel.files import link_or_copy
from components.kernel.step import In, Metrics, Out, step
from components.kernel.tables import WORK_FOLDER
from components.register.evaluation import Evaluation, evaluation_of
from components.register.lineage import lineage_tags
from components.register.model_card import CARD_NAME, render_card
from components.register.settings import RegisterSettings

REGISTRATION_NAME = "registration.json"
EVALUATION_FOLDER = "evaluation"
EVALUATION_FILES = ("evaluation.json", "samples.parquet", "images.parquet")
PAGE_NAME = "evaluation.html"


# The registry may be another one by now: the step looks every time.
@step(image="train", is_pure=False)
def register(
    checkpoint: In, evaluation: In, registration: Out, settings: RegisterSettings
) -> Metrics:
    """Register the checkpoint in the MLflow registry as the candidate.

    The version's files are a plain checkpoint with its model card, its evaluation and MLflow's
    description of it. The same checkpoint with the same evaluation stays the same version.
    """
    from components.tracking.registering import Submission, register_candidate
    from components.tracking.registry import Registry

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


def _main_numbers(evaluation: Evaluation) -> Metrics:
    return {
        name: value
        for name, value in evaluation.flat_metrics().items()
        if name in ("all.scene_accuracy", "all.mask_to_text_r1", "all.text_to_mask_r1")
    }
