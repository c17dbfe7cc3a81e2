"""Measure region retrieval: `pixclip evaluate --dataset … --checkpoint … --evaluation …`."""

from pathlib import Path

from components.core.errors import InputError
from components.core.progress import progress
from components.core.step import In, Metrics, Out, step
from components.evaluation.evaluate.settings import EvaluateSettings
from pixclip.data.layout import MANIFEST_NAME
from pixclip.json_files import JsonError, read_json_object


@step(image="train", gpus=1, version=2)
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
    from components.evaluation.evaluate.page import Evaluated, write_page
    from components.evaluation.evaluate.sources import (
        count_regions,
        embed_texts,
        input_errors,
        open_sources,
    )
    from pixclip.checksums import sha256_of
    from pixclip.data.shards import iterate_images
    from pixclip.evaluation.protocol import protocol_of
    from pixclip.evaluation.results import evaluate_embeddings, write_results
    from pixclip.evaluation.variants import Variants, embed_benchmark

    num_regions = count_regions(dataset, settings.split)
    with input_errors(), progress("evaluate", num_regions) as bar:
        sources = open_sources(text_embeddings, parent, checkpoint, settings.device)
        benchmark, embedded = embed_benchmark(
            Variants(sources.model, sources.parent),
            iterate_images(dataset, settings.split),
            batch_size=settings.batch_size,
            on_regions=bar.update,
        )
        texts_TD = embed_texts(sources, benchmark.texts)
        results = evaluate_embeddings(
            benchmark, embedded, texts_TD, num_resamples=settings.num_resamples, seed=settings.seed
        )
    evaluation.mkdir(parents=True, exist_ok=True)
    metrics = write_results(
        evaluation,
        results,
        protocol_of(settings.split),
        checkpoint=sources.digest,
        manifest=sha256_of(dataset / MANIFEST_NAME),
        version=_version(dataset),
    )
    write_page(evaluation, Evaluated(dataset, sources.model, results, embedded, texts_TD), settings)
    return {"num_regions": num_regions, "num_images": len(benchmark.image_ids), **metrics}


def _version(dataset: Path) -> dict[str, str]:
    """What `resolve_data` has written of the data set's origin; empty where it was not used."""
    path = dataset / "version.json"
    try:
        return read_json_object(path) if path.exists() else {}
    except JsonError as error:
        raise InputError(f"evaluate: {error}; bring the data set again") from None
