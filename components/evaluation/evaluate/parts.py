"""Measure retrieval of parts: `pixclip evaluate-parts --dataset … --checkpoint … …`."""

from pathlib import Path
from typing import TYPE_CHECKING

from components.core.errors import InputError
from components.core.step import In, Metrics, Out, step
from components.evaluation.evaluate.run import Asked, measure
from components.evaluation.evaluate.settings import EvaluateSettings

if TYPE_CHECKING:
    from pixclip.model import PixClip


@step(image="train", gpus=1, version=3)
def evaluate_parts(
    dataset: In, parent: In, checkpoint: In, evaluation: Out, settings: EvaluateSettings
) -> Metrics:
    """Measure retrieval of parts and of whole images on the benchmark, against the baselines.

    A part is seen as PA-CLIP sees it, cut out of the original image; beside it stand the whole
    image, and the model that training began with, both of its towers, under the same questions. Out
    come evaluation.json, every question's ranks as Parquet, and evaluation.html: open this first.
    """

    def open_models() -> Asked:
        from pixclip.checksums import weights_digest
        from pixclip.evaluation.part_variants import PARENT, PartVariants
        from pixclip.evaluation.protocol import FGPART_PARTS

        model, began = (_load(folder, settings.device) for folder in (checkpoint, parent))
        return Asked(
            model,
            weights_digest(checkpoint),
            PartVariants(model, began),
            model.encode_text,
            FGPART_PARTS.of_split(settings.split),
            {PARENT: began.encode_text},
        )

    return measure(dataset, evaluation, settings, open_models)


def _load(folder: Path, device: str) -> "PixClip":
    """A model that reads texts by itself.

    Raises:
        CheckpointError: the folder is no checkpoint.
        InputError: the model reads texts by a language model.
    """
    import torch

    from pixclip.checkpoint import load

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load(folder, device=device)
    if model.config.text.kind != "clip":
        raise InputError(
            f"evaluate_parts: {folder} reads texts by a language model; `pixclip evaluate` "
            "measures such models"
        )
    return model
