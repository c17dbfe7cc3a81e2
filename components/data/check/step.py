"""`pixclip check`: an artifact as a whole against its contract, with pages to look at.

The site is an index of our own and Great Expectations' Data Docs, made readable without a network.

pixclip check --checked longgrit --data-docs data_docs --set artifact=longgrit
"""

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import Field

from components.core.contracts import check_artifact, has_met, require_parquet
from components.core.errors import ContractViolation
from components.core.pages import template
from components.core.step import In, Metrics, Out, StepSettings, step
from components.core.tables import groups_of
from data_contracts.engine.check import ContractResult
from data_contracts.engine.contract import Contract, load_contract
from data_contracts.engine.data_docs import build_site, validate_chunk
from data_contracts.engine.tables import list_tables

log = logging.getLogger(__name__)

CheckedArtifact = Literal[
    "grit", "records", "images", "candidates", "regions", "captions", "contrasted", "quarantine",
    "longgrit",
]  # fmt: skip


class CheckSettings(StepSettings):
    """What is checked, and how much of it is shown."""

    artifact: CheckedArtifact = Field(
        "longgrit", description="which contract the checked folder must meet"
    )
    max_group_pages: int = Field(
        20, ge=0, description="pages for single groups, beside the page of the whole"
    )


@step(image="data", version=2)
def check(checked: In, data_docs: Out, settings: CheckSettings) -> Metrics:
    """Check an artifact's contract as a whole and build its Data Docs.

    Beside what is checked around every step, this sees rules over all groups, such as keys that
    are unique among them.
    """
    contract = load_contract(settings.artifact)
    assert contract is not None, f"{settings.artifact} has no contract"
    if list_tables(checked):
        require_parquet("checked", checked)
    known = has_met(settings.artifact, checked)  # and the run compared its bytes with the receipts
    whole = check_artifact(settings.artifact, checked, has_receipt=known, evaluate=validate_chunk)
    groups = _groups_to_show(checked, whole, settings.max_group_pages)
    results = {
        group: check_artifact(settings.artifact, checked / group, has_receipt=known)
        for group in groups
    }
    num_hidden = len(groups_of(checked)) - len(groups) if checked.is_dir() else 0
    write_site(data_docs, contract, {WHOLE: whole, **results}, num_hidden)
    _require_budget(contract, whole, data_docs)
    return {
        "num_rows": whole.num_rows,
        "num_tables": len(whole.tables),
        "num_rules": len(whole.totals),
        "num_rules_broken": len(whole.failures),
        "num_rows_failing": num_failing(whole),
    }


def _groups_to_show(checked: Path, whole: ContractResult, max_pages: int) -> list[str]:
    """The groups with most failing rows, and the first of the others if there is room."""
    groups = groups_of(checked) if checked.is_dir() else []
    failing = dict.fromkeys(groups, 0)
    for sums in whole.totals:
        for place, count in sums.files.items():
            group = whole.tables[place].relative_to(checked).parts[0]
            if group in failing and not sums.is_met:
                failing[group] += count
    ranked = sorted(groups, key=lambda group: (-failing[group], group))
    return sorted(ranked[:max_pages])


def _require_budget(contract: Contract, whole: ContractResult, pages: Path) -> None:
    """Refuse what breaks a rule in more rows than the contract's budget.

    Raises:
        ContractViolation: with rules, counts and examples.
    """
    failures = [str(failure) for failure in whole.failures]
    if is_past_budget(contract, whole):
        share = f"{num_failing(whole)} of {whole.num_rows} rows fail"
        advice = f"{share}, the budget is {contract.budget:.1%}. The pages are in {pages}."
        raise ContractViolation(contract.artifact, failures, advice)
    if failures:
        log.warning("%s: within the budget, but %s", contract.artifact, "; ".join(failures))


WHOLE = "all"


def write_site(
    folder: Path, contract: Contract, results: Mapping[str, ContractResult], num_hidden: int
) -> None:
    """Write the pages of the whole (`all`) and of single groups, and the index."""
    shutil.rmtree(folder, ignore_errors=True)  # pages of a run that failed
    build_site(folder, contract, results)
    make_offline(folder)
    (folder / "index.html").write_text(
        _index(folder, contract, results, num_hidden), encoding="utf-8"
    )


def _index(
    folder: Path, contract: Contract, results: Mapping[str, ContractResult], num_hidden: int
) -> str:
    whole = results[WHOLE]
    pages = {path.stem: path.relative_to(folder) for path in folder.glob("validations/**/*.html")}
    return template(TEMPLATES, "index.html.j2").render(
        artifact=contract.artifact,
        budget=contract.budget,
        is_past_budget=is_past_budget(contract, whole),
        num_rows=whole.num_rows,
        num_broken=len(whole.failures),
        num_failing=num_failing(whole),
        faults=[str(failure) for failure in whole.failures] if not whole.totals else [],
        num_hidden=num_hidden,
        pages=[
            {"name": name, "link": quote(str(pages[name])), "is_met": not result.failures}
            for name, result in results.items()
        ],
        rules=_rules(whole),
    )


def is_past_budget(contract: Contract, result: ContractResult) -> bool:
    """Whether more rows fail than the contract allows, or what fails are not single rows."""
    is_named = all(failure.keys for failure in result.failures)
    return bool(result.failures) and not (
        is_named and num_failing(result) <= contract.budget * result.num_rows
    )


def num_failing(result: ContractResult) -> int:
    """Rows that break a rule, each counted once as far as they have a name."""
    named = {key for failure in result.failures for key in failure.keys}
    return max([len(named), *(failure.num_rows for failure in result.failures)])


def _rules(result: ContractResult) -> list[dict[str, object]]:
    return [
        {
            "name": sums.rule.replace("_", " "),
            "column": sums.column,
            "is_met": sums.is_met,
            "num_values": sums.num_rows - sums.num_missing,
            "num_failing": sums.num_failing,
            "examples": ", ".join(f"{key}: {value}" for key, value in sums.values[:3]),
        }
        for sums in sorted(result.totals, key=lambda sums: (sums.is_met, -sums.num_failing))
    ]


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


# Make Data Docs pages readable without a network, and the same on every build.
#
# As Great Expectations writes them, they fetch Bootstrap, jQuery, Vega and fonts from five content
# delivery networks and a logo that reports every view to their maker; without those the index stays
# empty. The pages keep their text and tables; style is built in, scripts and remote parts go.


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
