"""Measure region retrieval: `pixclip evaluate --dataset … --checkpoint … --evaluation …`."""

from functools import partial

from components.core.step import In, Metrics, Out, step
from components.evaluation.evaluate.run import Asked, measure
from components.evaluation.evaluate.settings import EvaluateSettings


@step(image="train", gpus=1, version=3)
def evaluate(
    dataset: In,
    text_embeddings: In,
    parent: In,
    checkpoint: In,
    evaluation: Out,
    settings: EvaluateSettings,
) -> Metrics:
    """Measure region retrieval on the benchmark, against the baselines.

    Every image is decoded once for the model and all baselines, all see the same texts, and the
    numbers follow a protocol whose digest is written beside them (`pixclip.evaluation.protocol`).
    """

    def open_models() -> Asked:
        from components.evaluation.evaluate.sources import embed_texts, open_sources
        from pixclip.evaluation.protocol import LONGGRIT_REGIONS
        from pixclip.evaluation.variants import Variants

        sources = open_sources(text_embeddings, parent, checkpoint, settings.device)
        return Asked(
            sources.model,
            sources.digest,
            Variants(sources.model, sources.parent),
            partial(embed_texts, sources),
            LONGGRIT_REGIONS.of_split(settings.split),
        )

    return measure(dataset, evaluation, settings, open_models)
