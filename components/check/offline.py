"""Make Data Docs pages readable without a network, and the same on every build.

As Great Expectations writes them, they fetch Bootstrap, jQuery, Vega and fonts from five content
delivery networks and a logo that tells their maker of every view; without those the index stays
empty. The pages keep their text and tables; style is built in, scripts and remote parts go.
"""

import re
import shutil
from pathlib import Path

STYLE = (Path(__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")
# No script runs and nothing is fetched, whatever a value in the page says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
HEAD = (
    '<meta charset="UTF-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<style>\n{STYLE}</style>\n"
)
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
    for page in sorted(site.rglob("*.html")):
        page.write_text(offline_page(page.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.rmtree(site / "static", ignore_errors=True)


def offline_page(text: str) -> str:
    """A page without scripts and remote parts."""
    for pattern in REMOVED:
        text = re.sub(pattern, "", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(UUID, "", text).replace(NO_TIME, "not recorded")
    text = re.sub(r'(<a href="[^"]*index\.html">)\s*</a>', r"\1Data Docs</a>", text)
    text = text.replace("<head>", f"<head>\n{HEAD}", 1)
    return re.sub(r"\n\s*\n+", "\n", text)
