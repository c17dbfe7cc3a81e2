"""Train one stage of a recipe: `pixclip train --longgrit … --text-embeddings …`."""

from components.kernel.step import In, Metrics, Out, step
from components.train.settings import TrainSettings


@step(image="train", gpus=1)
def train(
    longgrit: In,
    text_embeddings: In,
    parent: In,
    checkpoint: Out,
    curves: Out,
    settings: TrainSettings,
) -> Metrics:
    """Train one stage of a recipe."""
    raise NotImplementedError
