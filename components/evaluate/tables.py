"""The page's tables: metrics by subset, the model beside its baselines and chance."""

from dataclasses import dataclass

from pixclip.evaluation.metrics import METRICS
from pixclip.evaluation.protocol import ALL
from pixclip.evaluation.results import Results
from pixclip.evaluation.summary import MODEL, Number, Numbers

TITLES = {
    "scene_accuracy": "Own text among those of its scene",
    "mask_to_text": "Region → text",
    "text_to_mask": "Text → region",
    "short_mask_to_text": "Region → short text",
    "short_text_to_mask": "Short text → region",
    "image_to_text": "Image → caption",
    "text_to_image": "Caption → image",
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
    num_regions = numbers.metrics[MODEL]["mask_to_text_r1"].num_samples
    return SubsetTable(title, num_regions, [name.replace("_", " ") for name in variants], rows)


def _cell(numbers: Numbers, variant: str, metric: str) -> Cell | None:
    if metric not in numbers.metrics[variant]:
        return None
    lead = numbers.leads[variant][metric]
    verdict = "ahead" if lead.low > 0 else "behind" if lead.high < 0 else ""
    return Cell(numbers.metrics[variant][metric], verdict)
