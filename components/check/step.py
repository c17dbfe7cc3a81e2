"""`pixclip check`: an artifact as a whole against its contract, with pages to look at.

pixclip check --checked longgrit --data-docs data_docs --set artifact=longgrit
"""

import logging
from pathlib import Path

from components.check.pages import WHOLE, is_past_budget, num_failing, write_site
from components.check.settings import CheckSettings
from components.kernel.contracts import check_artifact, require_parquet
from components.kernel.errors import ContractViolation
from components.kernel.step import In, Metrics, Out, step
from components.kernel.tables import groups_of
from data_contracts.contract import Contract, load_contract
from data_contracts.engine import ContractResult

log = logging.getLogger(__name__)


@step(image="data", version=2)
def check(checked: In, data_docs: Out, settings: CheckSettings) -> Metrics:
    """Check an artifact's contract as a whole and build its Data Docs.

    Beside what is checked around every step, this sees rules over all groups, such as keys that
    are unique among them.
    """
    contract = load_contract(settings.artifact)
    assert contract is not None, f"{settings.artifact} has no contract"
    if checked.is_file() or any(checked.rglob("*.parquet")):
        require_parquet("checked", checked)
    whole = check_artifact(settings.artifact, checked)
    groups = _groups_to_show(checked, whole, settings.max_group_pages)
    results = {group: check_artifact(settings.artifact, checked / group) for group in groups}
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
