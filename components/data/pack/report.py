"""`report.html`: the page on which one looks at the data set; self-contained, no scripts.

Captions, phrases and addresses come from strangers and language models: every value is escaped
by the template engine, and the page's own policy forbids scripts and anything from elsewhere.
"""

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from components.core.pages import template
from components.data.pack.charts import area_histogram, cover_cells, reason_bars, word_histogram
from components.data.pack.examples import Rejected, Sample, rejected_by_lot, samples_by_lot
from components.data.pack.settings import SOURCES, PackSettings
from components.data.pack.statistics import GRID_CELLS, Statistics, mean_words, stage_order
from pixclip.data.layout import CARD_NAME, MANIFEST_NAME, REPORT_NAME, SHARDS

SAMPLE_BUDGET_BYTES, REJECTED_BUDGET_BYTES = 3_200_000, 1_000_000
TEMPLATES = Path(__file__).parent / "templates"

Item = TypeVar("Item", Sample, Rejected)


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
    filters = {"in_stage_order": in_stage_order}
    return template(TEMPLATES, "report.html.j2", **filters).render(
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


def in_stage_order(items: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Pairs whose first is a stage, in the order in which stages come."""
    return sorted(items, key=lambda item: stage_order(item[:1]))


def markdown_cell(text: object) -> str:
    """A text that cannot leave its cell of a Markdown table or become markup."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)


def within_budget(items: Iterable[Item], budget_bytes: int) -> Iterator[Item]:
    """The first items whose pictures and outlines fit in the page's share of bytes."""
    for item in items:
        paths = [o.path for o in item.outlines] if isinstance(item, Sample) else []
        picture = item.picture.data_url if item.picture else ""
        budget_bytes -= len(picture) + sum(map(len, paths))
        if budget_bytes < 0:
            return
        yield item


# https://huggingface.co/docs/hub/datasets-cards: the names of the size categories.
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST_SIZE = "1M<n<10M"


def write_card(longgrit: Path, statistics: Statistics, settings: PackSettings) -> None:
    """Write the card into the data set."""
    text = render_card(statistics, settings)
    (longgrit / CARD_NAME).write_text(text, encoding="utf-8")


def render_card(statistics: Statistics, settings: PackSettings) -> str:
    """The card as Markdown text."""
    front = yaml.safe_dump(front_matter(statistics, settings), sort_keys=False, allow_unicode=True)
    body = template(TEMPLATES, "card.md.j2", cell=markdown_cell).render(
        statistics=statistics,
        settings=settings,
        source=SOURCES[settings.source],
        long_mean=mean_words(statistics.long_words),
        short_mean=mean_words(statistics.short_words),
    )
    return f"---\n{front}---\n\n{body}"


def front_matter(statistics: Statistics, settings: PackSettings) -> dict[str, Any]:
    """What the hub shows beside the card, and which files make which split."""
    size = next((name for limit, name in SIZES if statistics.num_regions < limit), LARGEST_SIZE)
    filled = [name for name, split in statistics.splits.items() if split.num_regions]
    return {
        "pretty_name": "LongGRIT",
        "license": "other",
        "license_name": f"see-the-card-{settings.source}",
        "language": ["en"],
        "task_categories": ["image-to-text", "zero-shot-image-classification"],
        "size_categories": [size],
        "tags": ["webdataset", "image", "region-captions", "masks", "fine-grained"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": f"{name}/{SHARDS}"} for name in filled],
            }
        ],
    }
