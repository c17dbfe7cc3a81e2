"""`README.md`: the dataset card, with the front matter that the Hugging Face hub reads."""

from pathlib import Path
from typing import Any

import yaml

from components.kernel.pages import template
from components.pack.report import TEMPLATES, markdown_cell
from components.pack.settings import PackSettings
from components.pack.sources import SOURCES
from components.pack.statistics import Statistics, mean_words

CARD_NAME = "README.md"
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
                "data_files": [{"split": name, "path": f"{name}/*.tar"} for name in filled],
            }
        ],
    }
