"""What `evaluate` and `evaluate_parts` share: from models and their texts to numbers and a page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from components.core.errors import InputError
from components.core.progress import progress
from components.core.step import Metrics
from components.evaluation.evaluate.settings import EvaluateSettings
from pixclip.data.layout import MANIFEST_NAME
from pixclip.json_files import JsonError, read_json_object

if TYPE_CHECKING:
    from torch import Tensor

    from pixclip.evaluation.protocol import Protocol
    from pixclip.evaluation.variants import AnyVariants
    from pixclip.model import PixClip

    EmbedTexts = Callable[[Sequence[str]], Tensor]  # normalised [T, D]


@dataclass(frozen=True)
class Asked:
    """A model, the ways in which it embeds regions, and how its texts are embedded."""

    model: "PixClip"
    digest: str  # SHA-256 of the checkpoint's weights
    variants: "AnyVariants"
    embed_texts: "EmbedTexts"
    protocol: "Protocol"
    own_texts: "Mapping[str, EmbedTexts]" = field(default_factory=dict)  # of other variants


def measure(
    dataset: Path,
    evaluation: Path,
    settings: EvaluateSettings,
    open_models: Callable[[], Asked],
) -> Metrics:
    """Ask the benchmark's questions; write numbers, every question's answer and the page.

    Raises:
        InputError: data set, models or texts cannot be used or do not belong together.
    """
    from components.evaluation.evaluate.page import Evaluated, write_page
    from components.evaluation.evaluate.sources import count_regions, input_errors
    from pixclip.checksums import sha256_of
    from pixclip.data.shards import iterate_images
    from pixclip.evaluation.results import evaluate_embeddings, write_results
    from pixclip.evaluation.variants import embed_benchmark

    num_regions = count_regions(dataset, settings.split)
    with input_errors(), progress("evaluate", num_regions) as bar:
        asked = open_models()
        benchmark, embedded = embed_benchmark(
            asked.variants,
            iterate_images(dataset, settings.split),
            batch_size=settings.batch_size,
            on_regions=bar.update,
        )
        texts_TD = asked.embed_texts(benchmark.texts)
        for variant, embed_texts in asked.own_texts.items():
            own_TD = embed_texts(benchmark.texts)
            embedded[variant] = replace(embedded[variant], texts_TD=own_TD)
        results = evaluate_embeddings(
            benchmark, embedded, texts_TD, num_resamples=settings.num_resamples, seed=settings.seed
        )
    evaluation.mkdir(parents=True, exist_ok=True)
    metrics = write_results(
        evaluation,
        results,
        asked.protocol,
        checkpoint=asked.digest,
        manifest=sha256_of(dataset / MANIFEST_NAME),
        version=_version(dataset),
    )
    samples = map(asked.variants.asked_of, iterate_images(dataset, settings.split))
    evaluated = Evaluated(
        samples,
        asked.model,
        results,
        embedded,
        texts_TD,
        asked.protocol,
        asked.variants.sees_crops,
    )
    write_page(evaluation, evaluated, settings)
    num_asked = len(benchmark.region_ids)
    return {"num_regions": num_asked, "num_images": len(benchmark.image_ids), **metrics}


def _version(dataset: Path) -> dict[str, str]:
    """What `resolve_data` has written of the data set's origin; empty where it was not used."""
    path = dataset / "version.json"
    try:
        return read_json_object(path) if path.exists() else {}
    except JsonError as error:
        raise InputError(f"evaluate: {error}; bring the data set again") from None
