"""Make Data Docs pages readable without a network, and the same on every build.

As Great Expectations writes them, they fetch Bootstrap, jQuery, Vega and fonts from five content
delivery networks and a logo that tells their maker of every view; without those the index stays
empty. The pages keep their text and tables; style is built in, scripts and remote parts go.
"""

import re
import shutil
from pathlib import Path

from components.kernel.pages import template

TEMPLATES = Path(__file__).parent / "templates"
REMOVED = (
    r"<script\b.*?</script>",
    r"<style\b.*?</style>",
    r"<link\b[^>]*>",
    r"<meta\b[^>]*>",
    r"<img\b[^>]*\bNO-CACHE\b[^>]*>",
    r"<footer\b.*?</footer>",
    r'<div class="btn-group\b.*?</div>',
)
UUID = r"-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NO_TIME = "1970-01-01T00:00:00Z"


def make_offline(site: Path) -> None:
    """Rewrite every page of a site and remove what only the scripts used."""
    head = own_head()
    for page in sorted(site.rglob("*.html")):
        page.write_text(offline_page(page.read_text(encoding="utf-8"), head), encoding="utf-8")
    shutil.rmtree(site / "static", ignore_errors=True)


def own_head() -> str:
    """What our own pages have in their heads: the policy and the style."""
    return template(TEMPLATES, "head.html.j2").render(style="docs.css")


def offline_page(text: str, head: str) -> str:
    """A page without scripts and remote parts, under another head."""
    for pattern in REMOVED:
        text = re.sub(pattern, "", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(UUID, "", text).replace(NO_TIME, "not recorded")
    text = re.sub(r'(<a href="[^"]*index\.html">)\s*</a>', r"\1Data Docs</a>", text)
    text = text.replace("<head>", f"<head>\n{head}", 1)
    return re.sub(r"\n\s*\n+", "\n", text)
