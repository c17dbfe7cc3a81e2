"""`README.md` of a model: data, recipe, numbers beside their baselines, use and limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.kernel.pages import template
from components.register.evaluation import Evaluation
from components.register.settings import RegisterSettings

CARD_NAME = "README.md"
TEMPLATES = Path(__file__).parent / "templates"
# In this order, as far as the evaluation has them.
METRICS = {
    "scene_accuracy": "accuracy among the regions of a scene",
    "mask_to_text_r1": "mask to text R@1",
    "mask_to_text_r5": "mask to text R@5",
    "mask_to_text_r10": "mask to text R@10",
    "text_to_mask_r1": "text to mask R@1",
    "text_to_mask_r5": "text to mask R@5",
    "text_to_mask_r10": "text to mask R@10",
    "image_to_text_r1": "whole image to text R@1",
    "text_to_image_r1": "text to whole image R@1",
}


def render_card(tags: Mapping[str, str], evaluation: Evaluation, settings: RegisterSettings) -> str:
    """The card as Markdown text."""
    subsets = [
        name for name in ("all", "seen_objects", "held_out_objects") if _has(evaluation, name)
    ]
    return template(TEMPLATES, "card.md.j2", plain=plain).render(
        tags=tags,
        settings=settings,
        data=evaluation.content["data"],
        tables=[{"subset": name, **_table(evaluation, name)} for name in subsets],
    )


def plain(text: object) -> str:
    """A text that cannot become markup or leave its cell."""
    kept = "".join(c if c.isalnum() or c in " .,:;/@+-_=()" else " " for c in str(text))
    return " ".join(kept.split())


def _has(evaluation: Evaluation, subset: str) -> bool:
    return bool(evaluation.metrics.get(subset))


def _table(evaluation: Evaluation, subset: str) -> dict[str, Any]:
    """Columns: this model, then every baseline; a row a metric."""
    columns = {"this model": evaluation.metrics} | dict(evaluation.baselines)
    rows = []
    for metric, meaning in METRICS.items():
        values = [numbers.get(subset, {}).get(metric) for numbers in columns.values()]
        if values[0] is not None:
            shown = ["–" if value is None else f"{100 * value:.1f} %" for value in values]
            rows.append([meaning, *shown])
    return {"columns": [name.replace("_", " ") for name in columns], "rows": rows}
