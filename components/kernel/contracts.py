"""Check a step's drafts against their contracts; failing rows go to the quarantine.

Within the contract's budget the failing regions are taken out of the tables and into the step's
quarantine. Past it, or where a table has no quarantine beside it, the step fails.
"""

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.kernel.errors import ContractViolation, InputError
from components.kernel.receipts import read_receipt
from components.kernel.step import Metrics
from components.kernel.tables import Row, read_rows, table_paths, write_rows
from components.kernel.tally import (
    REASON_PREFIX,
    ROWS_OUT,
    ROWS_QUARANTINED,
    quarantine_row,
    write_quarantine,
)
from data_contracts.contract import contract_digest, load_contract
from data_contracts.engine import ContractResult, check_table

REGION_KEY = "region_id"


def require_contract(name: str, path: Path) -> None:
    """Check an input, unless receipts say that it met this very contract when it was made.

    Raises:
        ContractViolation: it does not meet its contract.
    """
    contract = load_contract(name)
    if contract is None or _has_met(name, path):
        return
    if not path.is_dir() or not any(path.rglob("*.parquet")):
        raise InputError(f"input {name} at {path} holds no Parquet file")
    result = check_table(name, path)
    if result.failures:
        raise ContractViolation(name, [str(failure) for failure in result.failures])


def _has_met(name: str, path: Path) -> bool:
    receipts = [read_receipt(path)]
    if receipts[0] is None:
        receipts = [read_receipt(child) for child in sorted(path.iterdir()) if child.is_dir()]
    digest = contract_digest(name)
    return bool(receipts) and all(
        receipt is not None and receipt.contracts.get(name) == digest for receipt in receipts
    )


def check_drafts(
    step: str, drafts: Mapping[str, Path], metrics: Metrics
) -> tuple[dict[str, Path], Metrics, dict[str, str]]:
    """Check every draft that has a contract.

    Gives the paths to publish (a draft itself, or its copy without the failing rows), the metrics
    with those rows counted as quarantined, and the digests of the contracts that were met.

    Raises:
        ContractViolation: more rows fail than the contract's budget allows.
    """
    ready, met = dict(drafts), {}
    for name, draft in drafts.items():
        if load_contract(name) is None:
            continue
        result = check_table(name, draft)
        if result.failures:
            reasons = _failing_regions(name, result, ready)
            ready = _set_aside(step, name, ready, reasons)
            metrics = _recount(metrics, reasons)
        met[name] = contract_digest(name)
    return ready, metrics, met


def _failing_regions(
    name: str, result: ContractResult, drafts: Mapping[str, Path]
) -> dict[str, str]:
    """Region -> the first rule it breaks, if the table may lose these rows."""
    contract = load_contract(name)
    assert contract is not None
    reasons: dict[str, str] = {}
    for failure in result.failures:
        for key in failure.keys:
            reasons.setdefault(key, failure.rule)
    may_lose_rows = (
        contract.key == REGION_KEY
        and "quarantine" in drafts
        and all(failure.keys for failure in result.failures)
        and len(reasons) <= contract.budget * result.num_rows
    )
    if not may_lose_rows:
        raise ContractViolation(name, [str(failure) for failure in result.failures])
    return reasons


def _set_aside(
    step: str, name: str, drafts: dict[str, Path], reasons: Mapping[str, str]
) -> dict[str, Path]:
    """Copies of the table and of the quarantine with the failing rows moved; drafts stay whole."""
    table, quarantine = (_copy_path(drafts[key]) for key in (name, "quarantine"))
    _link_tree(drafts[name], table)
    dropped: list[Row] = []
    for path in table_paths(table):
        schema = _schema(path)
        rows = list(read_rows(path))
        dropped += [row for row in rows if row[REGION_KEY] in reasons]
        path.unlink()  # a hard link of the draft's file: never write through it
        write_rows(path, (row for row in rows if row[REGION_KEY] not in reasons), schema)
    rules = [
        quarantine_row(step, row, f"contract:{reasons[row[REGION_KEY]]}", f"contract of {name}")
        for row in dropped
    ]
    write_quarantine(quarantine, [*read_rows(drafts["quarantine"]), *rules])
    return {**drafts, name: table, "quarantine": quarantine}


def _schema(path: Path) -> pa.Schema:
    return pq.read_schema(path)


def _copy_path(draft: Path) -> Path:
    copy = draft.with_name(f"{draft.name}-checked")
    shutil.rmtree(copy, ignore_errors=True)
    copy.unlink(missing_ok=True)
    return copy


def _link_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=os.link)


def _recount(metrics: Metrics, reasons: Mapping[str, str]) -> Metrics:
    counts = Counter(f"{REASON_PREFIX}contract:{rule}" for rule in reasons.values())
    changed = {name: metrics.get(name, 0) + count for name, count in counts.items()}
    if ROWS_OUT in metrics:
        changed[ROWS_OUT] = metrics[ROWS_OUT] - len(reasons)
        changed[ROWS_QUARANTINED] = metrics[ROWS_QUARANTINED] + len(reasons)
    return {**metrics, **changed}
