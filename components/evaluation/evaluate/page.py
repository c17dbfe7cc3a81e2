"""`evaluation.html`: numbers beside their baselines, and what the model finds; no scripts.

Captions come from strangers and language models; `components.core.pages` escapes them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from components.core.pages import template
from components.evaluation.evaluate.examples import (
    Example,
    Figures,
    FigureWriter,
    by_lot,
    show,
    worst,
)
from components.evaluation.evaluate.settings import EvaluateSettings
from pixclip.data.samples import Sample
from pixclip.evaluation.benchmark import Embedded
from pixclip.evaluation.metrics import METRICS
from pixclip.evaluation.part_variants import PARENT
from pixclip.evaluation.protocol import ALL, SCENE_ACCURACY, Protocol, Question
from pixclip.evaluation.results import MODEL, Number, Numbers, Results
from pixclip.evaluation.variants import MASK_CONV_ONLY, MASKED_CROP, WHOLE_IMAGE
from pixclip.model import PixClip

PAGE_NAME = "evaluation.html"
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Evaluated:
    """A model, the data it was asked about, and what came out."""

    samples: Iterable[Sample]  # those of the benchmark, in their order
    model: PixClip
    results: Results
    embedded: dict[str, Embedded]  # by variant
    texts_TD: Tensor
    protocol: Protocol
    sees_crops: bool  # the model is given regions cut out


def write_page(folder: Path, evaluated: Evaluated, settings: EvaluateSettings) -> None:
    """Draw the pictures and write the page into the folder."""
    results = evaluated.results
    benchmark, samples = results.benchmark, results.answers[MODEL].samples
    lot = by_lot(benchmark, max(settings.num_examples, settings.num_maps), settings.seed)
    examples, mistakes = (
        show(regions, benchmark, samples, evaluated.embedded[MODEL], evaluated.texts_TD)
        for regions in (
            lot[: settings.num_examples],
            worst(benchmark, samples, settings.num_mistakes),
        )
    )
    writer = FigureWriter(
        folder, evaluated.model, benchmark, evaluated.texts_TD, evaluated.sees_crops
    )
    figures = writer.draw(
        evaluated.samples,
        _regions_of([*examples, *mistakes]),
        set(lot[: settings.num_maps]),
    )
    page = render(evaluated, examples, mistakes, figures, settings)
    (folder / PAGE_NAME).write_text(page, encoding="utf-8")


def render(
    evaluated: Evaluated,
    examples: list[Example],
    mistakes: list[Example],
    figures: Figures,
    settings: EvaluateSettings,
) -> str:
    """The page as HTML text."""
    results = evaluated.results
    return template(TEMPLATES, "evaluation.html.j2").render(
        benchmark=results.benchmark,
        protocol=evaluated.protocol,
        model=results.numbers[ALL].metrics[MODEL],
        chance=results.chances[ALL],
        tables=tables(results),
        notes=[VARIANT_NOTES[name] for name in results.answers if name in VARIANT_NOTES],
        sees_crops=evaluated.sees_crops,
        examples=examples,
        mistakes=mistakes,
        figures=figures,
        settings=settings,
    )


def _regions_of(shown: list[Example]) -> set[int]:
    """Every region of which the page needs a picture: those asked and those found."""
    asked = {item.region for item in shown}
    return asked | {found.place for item in shown for found in item.regions}


TITLES = {
    SCENE_ACCURACY: "Own text among those of its scene",
    Question.MASK_TO_TEXT: "Region → text",
    Question.TEXT_TO_MASK: "Text → region",
    Question.SHORT_MASK_TO_TEXT: "Region → short text",
    Question.SHORT_TEXT_TO_MASK: "Short text → region",
    Question.IMAGE_TO_TEXT: "Image → caption",
    Question.TEXT_TO_IMAGE: "Caption → image",
}


VARIANT_NOTES = {
    WHOLE_IMAGE: "Whole image: no mask, so the regions of an image are one to it, and their ties "
    "count against it.",
    MASKED_CROP: "Masked crop: the region cut out on the mean colour, no mask.",
    MASK_CONV_ONLY: "Mask conv only: the vision weights that training began with, under this "
    "checkpoint's mask convolution and adaptor.",
    PARENT: "Parent: the same crops in the model that training began with, asked by the texts as "
    "its own text tower reads them.",
}


@dataclass(frozen=True)
class Cell:
    """A variant's share and its interval; whether the model is better or worse beyond chance."""

    number: Number
    verdict: str = ""  # "ahead": the model leads, "behind": the baseline does, "": not told apart


@dataclass(frozen=True)
class Row:
    """A metric: the cell of every variant that is asked, and what chance gives."""

    group: str  # empty if it is that of the row above
    name: str
    cells: list[Cell | None]
    chance: float


@dataclass(frozen=True)
class SubsetTable:
    """The metrics of a subset."""

    title: str
    num_regions: int
    variants: list[str]
    rows: list[Row]


def tables(results: Results) -> list[SubsetTable]:
    """A table for all regions and one for each subset."""
    return [_table(results, subset, numbers) for subset, numbers in results.numbers.items()]


def _table(results: Results, subset: str, numbers: Numbers) -> SubsetTable:
    variants = list(results.answers)
    rows: list[Row] = []
    last = ""
    for name in METRICS:
        if name not in numbers.metrics[MODEL]:
            continue
        group, _, top = name.rpartition("_r")
        title = TITLES[group or name]
        cells = [_cell(numbers, variant, name) for variant in variants]
        chance = results.chances[subset][name]
        rows.append(
            Row("" if title == last else title, f"R@{top}" if group else "accuracy", cells, chance)
        )
        last = title
    title = "All regions" if subset == ALL else subset.replace("_", " ").capitalize()
    num_regions = numbers.metrics[MODEL][Question.MASK_TO_TEXT.recall_at(1)].num_samples
    return SubsetTable(title, num_regions, [name.replace("_", " ") for name in variants], rows)


def _cell(numbers: Numbers, variant: str, metric: str) -> Cell | None:
    if metric not in numbers.metrics[variant]:
        return None
    lead = numbers.leads[variant][metric]
    verdict = "ahead" if lead.low > 0 else "behind" if lead.high < 0 else ""
    return Cell(numbers.metrics[variant][metric], verdict)
