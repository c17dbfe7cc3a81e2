"""`README.md` and `report.html` of the merged set: what each set is, and what was left out of it.

The sets' own cards and reports stay below `sets/`; this one counts and points to them. Names of
subsets come from strangers: pages escape every value, and the card's filter does.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.core.errors import InputError
from components.core.pages import template
from components.data.merge_data.sets import DataSet
from components.data.merge_data.writer import KEPT_FILES, SETS, VERSION_NAME, Counts, SetCount
from pixclip.data.layout import CARD_NAME, REPORT_NAME, SHARDS, SPLITS
from pixclip.json_files import JsonError, read_json_object

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Part:
    """A set as card and report tell of it."""

    name: str
    version: str  # in words
    files: list[str]  # of its own, below `sets/<name>/`
    count: SetCount
    prefix: str


def write_pages(dataset: Path, sets: Sequence[DataSet], counts: Counts, max_distance: int) -> None:
    """Write card and report into the merged set."""
    parts = [
        Part(one.name, _version(one), _files(one), counts[one.name], one.prefix) for one in sets
    ]
    facts: dict[str, Any] = {
        "parts": parts,
        "splits": SPLITS,
        "folder": SETS,
        "max_distance": max_distance,
        "num_regions": sum(part.count.num_regions for part in parts),
        "num_images": sum(
            split.num_images for part in parts for split in part.count.splits.values()
        ),
    }
    front = yaml.safe_dump(_front_matter(parts), sort_keys=False, allow_unicode=True)
    body = template(TEMPLATES, "card.md.j2", cell=_markdown_cell).render(facts)
    (dataset / CARD_NAME).write_text(f"---\n{front}---\n\n{body}", encoding="utf-8")
    page = template(TEMPLATES, "report.html.j2").render(facts)
    (dataset / REPORT_NAME).write_text(page, encoding="utf-8")


def _version(one: DataSet) -> str:
    """Which version of the set was merged, as `resolve_data` has noted it."""
    path = one.folder / VERSION_NAME
    try:
        told = read_json_object(path) if path.exists() else {}
    except JsonError as error:
        raise InputError(f"merge_data: {error}; bring the data set again") from None
    if "git_commit" in told:
        return f"{told.get('name')}, commit {told['git_commit']}"
    return f"from {told['uri']}" if "uri" in told else "no published version"


def _files(one: DataSet) -> list[str]:
    return [name for name in KEPT_FILES if (one.folder / name).is_file()]


def _front_matter(parts: Sequence[Part]) -> dict[str, Any]:
    """What the hub reads: names, and which files make which split."""
    filled = [split for split in SPLITS if any(split in part.count.splits for part in parts)]
    return {
        "pretty_name": " + ".join(part.name for part in parts),
        "license": "other",
        "license_name": "see-the-cards-of-the-sets",
        "language": ["en"],
        "task_categories": ["image-to-text", "zero-shot-image-classification"],
        "tags": ["webdataset", "image", "region-captions", "masks", "fine-grained"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": f"{name}/{SHARDS}"} for name in filled],
            }
        ],
    }


def _markdown_cell(text: object) -> str:
    """A text that cannot leave its cell of a Markdown table or become markup."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)
