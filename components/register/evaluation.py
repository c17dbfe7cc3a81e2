"""The evaluation that speaks for a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.kernel.digests import file_sha256
from components.kernel.errors import InputError
from components.tracking.evaluations import read_evaluation_whole
from pixclip.checksums import (
    WEIGHTS_NAME,
    CheckpointError,
    read_checksums,
    verify,
    weights_digest,
)

# Whose numbers the registry shows beside the model; the rest is in its evaluation/ folder.
SUBSETS = ("all", "seen_objects", "held_out_objects")


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
