"""`evaluation.html`: numbers beside their baselines, and what the model finds; no scripts.

Captions come from strangers and language models; `kernel.pages` escapes them.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from components.evaluate.chosen import Shown, by_lot, show, worst
from components.evaluate.drawn import Artist, Drawings
from components.evaluate.settings import EvaluateSettings
from components.evaluate.tables import tables
from components.kernel.pages import template
from pixclip.data.shards import iterate_images
from pixclip.evaluation.answers import Embedded
from pixclip.evaluation.protocol import ALL, protocol_of
from pixclip.evaluation.results import Results
from pixclip.evaluation.summary import MODEL
from pixclip.model import PixClip

PAGE_NAME = "evaluation.html"
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Evaluated:
    """A model, the data it was asked about, and what came out."""

    longgrit: Path
    model: PixClip
    results: Results
    embedded: dict[str, Embedded]  # by variant
    texts_TD: Tensor


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
    drawings = Artist(folder, evaluated.model, benchmark, evaluated.texts_TD).draw(
        iterate_images(evaluated.longgrit, settings.split),
        _regions_of([*examples, *mistakes]),
        set(lot[: settings.num_maps]),
    )
    page = render(results, examples, mistakes, drawings, settings)
    (folder / PAGE_NAME).write_text(page, encoding="utf-8")


def render(
    results: Results,
    examples: list[Shown],
    mistakes: list[Shown],
    drawings: Drawings,
    settings: EvaluateSettings,
) -> str:
    """The page as HTML text."""
    return template(TEMPLATES, "evaluation.html.j2").render(
        benchmark=results.benchmark,
        protocol=protocol_of(settings.split),
        model=results.numbers[ALL].metrics[MODEL],
        chance=results.chances[ALL],
        tables=tables(results),
        examples=examples,
        mistakes=mistakes,
        drawings=drawings,
        settings=settings,
    )


def _regions_of(shown: list[Shown]) -> set[int]:
    """Every region of which the page needs a picture: those asked and those found."""
    asked = {item.region for item in shown}
    return asked | {found.place for item in shown for found in item.regions}
