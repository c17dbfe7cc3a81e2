"""Pages and cards: one template engine, one style sheet and one policy for all that steps write.

Texts on pages come from strangers and language models. HTML escapes every value, and `head.html.j2`
forbids scripts and anything from elsewhere; pages extend `page.html.j2`, name their own style sheet
in `style`, and open without a network. Markdown (`*.md.j2`) escapes nothing by itself: cards clean
what they did not write with a filter of their own.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def template(folder: Path, name: str, **filters: Callable[..., object]) -> "Template":
    """A template of a step's folder; a variable that it names and is not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    environment.filters.update(filters)
    return environment.get_template(name)


def _printable(value: Any) -> Any:
    """A text without what no page of UTF-8 may hold: control characters and lone surrogates."""
    if isinstance(value, str) and UNPRINTABLE.search(value):
        return type(value)(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value))
    return value
