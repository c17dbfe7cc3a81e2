"""The site of a checked artifact: an index of our own, and Great Expectations' Data Docs."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from components.check.offline import TEMPLATES, make_offline
from components.kernel.pages import template
from data_contracts.contract import Contract
from data_contracts.data_docs import build_site
from data_contracts.engine import ContractResult

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
