"""Measure region retrieval on the benchmark: `pixclip evaluate --longgrit … --text-embeddings …`."""

from components.evaluate.settings import EvaluateSettings
from components.kernel.step import In, Metrics, Out, step


@step(image="train", gpus=1)
def evaluate(
    longgrit: In,
    text_embeddings: In,
    parent: In,
    checkpoint: In,
    evaluation: Out,
    settings: EvaluateSettings,
) -> Metrics:
    """Measure region retrieval on the benchmark, against the baselines."""
    raise NotImplementedError
