"""What training ended with: the model's numbers beside its baselines, the policy's word, the pages.

For a run folder of `pixclip_train`, or the artifacts of a local run of the Kubeflow pipeline.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

ARTIFACTS = ("checkpoint", "evaluation", "registration", "promotion")
SHOWN_METRICS = ("scene_accuracy", "mask_to_text_r1", "text_to_mask_r1", "image_to_text_r1")
SUBSETS = ("all", "seen_objects", "held_out_objects")
PAGES = {"evaluation": "evaluation.html", "promotion": "report.html"}


def find_results(run: Path) -> dict[str, Path]:
    """The artifacts of training that a run folder has."""
    return {name: run / name for name in ARTIFACTS if (run / name).is_dir()}


def render_results(artifacts: Mapping[str, Path]) -> "RenderableType":
    """Numbers, decision and places as a rich renderable."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in _facts(artifacts):
        facts.add_row(name, escape(text))
    parts: list[RenderableType] = [facts]
    if "evaluation" in artifacts:
        parts.insert(0, _numbers(json.loads(_read(artifacts["evaluation"], "evaluation.json"))))
    return Group(*parts)


def _numbers(evaluation: Mapping[str, Any]) -> Any:
    from rich.table import Table

    data = evaluation["data"]
    title = f"{evaluation['protocol']} · {data['num_regions']} regions, {data['num_images']} images"
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for metric in SHOWN_METRICS:
        table.add_column(metric.replace("_", " "), justify="right")
    for name, numbers in _rows(evaluation):
        values = [numbers.get(metric) for metric in SHOWN_METRICS]
        table.add_row(name, *("" if value is None else f"{value:.3f}" for value in values))
    return table


def _rows(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float]]]:
    for subset in SUBSETS:
        if subset in evaluation["metrics"]:
            yield subset.replace("_", " "), evaluation["metrics"][subset]
    yield "chance", evaluation.get("chance", {}).get("all", {})
    for name, subsets in evaluation.get("baselines", {}).items():
        yield f"baseline {name.replace('_', ' ')}", subsets["all"]


def _facts(artifacts: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    if "promotion" in artifacts:
        report = json.loads(_read(artifacts["promotion"], "report.json"))
        yield "decision", report["headline"]
        yield "because", report["reason"]
    for name, path in artifacts.items():
        page = path / PAGES.get(name, "")
        yield name, os.path.relpath(page if page.exists() else path)


def _read(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")
