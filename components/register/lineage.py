"""Where a checkpoint comes from, as tags of its version in the registry."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.kernel.receipts import read_receipt
from components.register.evaluation import Evaluation
from components.register.settings import RegisterSettings
from components.tracking.registry import WEIGHTS_TAG

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


def git_commit() -> str | None:
    """The commit of the checkout this code is in, `+changes` if files differ from it."""
    folder = Path(__file__).parent
    described = _git(folder, "describe", "--always", "--abbrev=40", "--dirty=+changes")
    return described or None


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
