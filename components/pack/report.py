"""`report.html`: the page on which one looks at the data set; self-contained, no scripts.

Captions, phrases and addresses come from strangers and language models: every value is escaped
by the template engine, and the page's own policy forbids scripts and anything from elsewhere.
"""

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from components.pack.charts import area_histogram, cover_cells, reason_bars, word_histogram
from components.pack.settings import PackSettings
from components.pack.shown import Rejected, Sample, rejected_by_lot, samples_by_lot
from components.pack.sources import SOURCES
from components.pack.statistics import GRID_CELLS, Statistics, mean_words, stage_order
from components.pack.writer import MANIFEST_NAME

REPORT_NAME = "report.html"
SAMPLE_BUDGET_BYTES, REJECTED_BUDGET_BYTES = 3_200_000, 1_000_000
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
TEMPLATES = Path(__file__).parent / "templates"

Shown = TypeVar("Shown", Sample, Rejected)


def write_report(
    longgrit: Path,
    images: Path,
    quarantines: Path,
    statistics: Statistics,
    settings: PackSettings,
) -> None:
    """Draw samples and rejected regions by lot and write the page into the data set."""
    samples = samples_by_lot(
        longgrit, longgrit / MANIFEST_NAME, settings.report_images, settings.seed
    )
    rejected = rejected_by_lot(quarantines, images, settings.report_rejected, settings.seed)
    page = render_report(
        statistics,
        list(within_budget(samples, SAMPLE_BUDGET_BYTES)),
        list(within_budget(rejected, REJECTED_BUDGET_BYTES)),
        settings,
    )
    (longgrit / REPORT_NAME).write_text(page, encoding="utf-8")


def render_report(
    statistics: Statistics,
    samples: list[Sample],
    rejected: list[Rejected],
    settings: PackSettings,
) -> str:
    """The page as HTML text."""
    stages = statistics.funnel
    page: str = template("report.html.j2").render(
        statistics=statistics,
        samples=samples,
        rejected=rejected,
        source=SOURCES[settings.source],
        licence_note=settings.licence_note,
        regions_in=stages[0].regions_in,
        mean_words=mean_words(statistics.long_words),
        histograms=[
            word_histogram("Words in a long caption", statistics.long_words),
            word_histogram("Words in a short caption", statistics.short_words),
            area_histogram(statistics),
        ],
        cells=cover_cells(statistics),
        num_cells=GRID_CELLS,
        reasons=reason_bars(stages),
    )
    return page


def template(name: str) -> Any:
    """A template of this package; HTML escapes every value."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    environment.filters["in_stage_order"] = lambda items: sorted(items, key=_by_stage)
    environment.filters["cell"] = markdown_cell
    return environment.get_template(name)


def _printable(value: Any) -> Any:
    """A text without what no page of UTF-8 may hold: control characters and lone surrogates."""
    if isinstance(value, str) and UNPRINTABLE.search(value):
        return type(value)(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value))
    return value


def _by_stage(item: tuple[str, Any]) -> tuple[int, Any]:
    return stage_order(item[:1])


def markdown_cell(text: object) -> str:
    """A text that cannot leave its cell of a Markdown table or become markup."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)


def within_budget(items: Iterable[Shown], budget_bytes: int) -> Iterator[Shown]:
    """The first items whose pictures and outlines fit in the page's share of bytes."""
    for item in items:
        paths = [o.path for o in item.outlines] if isinstance(item, Sample) else []
        picture = item.picture.data_url if item.picture else ""
        budget_bytes -= len(picture) + sum(map(len, paths))
        if budget_bytes < 0:
            return
        yield item
