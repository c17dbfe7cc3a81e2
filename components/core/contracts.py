"""Check a step's drafts against their contracts; failing rows go to the quarantine.

Within the contract's budget the failing regions are taken out of the tables and into the step's
quarantine. Past it, or where a table has no quarantine beside it, the step fails.
"""

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from components.core.counts import (
    REASON_PREFIX,
    ROWS_OUT,
    ROWS_QUARANTINED,
    quarantine_row,
    write_quarantine,
)
from components.core.drafts import CHECKED
from components.core.errors import ContractViolation, InputError
from components.core.files import link_or_copy
from components.core.receipts import receipts_of
from components.core.step import ARTIFACTS, Metrics, alike
from components.core.tables import (
    WORK_FOLDER,
    Row,
    read_batches,
    read_rows,
    table_paths,
    write_rows,
)
from data_contracts.engine.check import ContractResult, Evaluate, check_table, count_chunk
from data_contracts.engine.contract import Contract, contract_digest, load_contract
from data_contracts.engine.reading import TableError, read_schema
from data_contracts.engine.tables import list_tables
from data_contracts.reasons import ContractReason

REGION_KEY, QUARANTINE = "region_id", "quarantine"


def contract_of(artifact: str) -> Contract | None:
    """What an artifact promises, or None if that is nothing."""
    name = ARTIFACTS[artifact].contract
    contract = load_contract(name) if name else None
    assert contract or not name, f"data_contracts/{name}.py holds no contract"
    return contract


def require_contract(name: str, path: Path) -> None:
    """Check an input, unless receipts say that it met this very contract when it was made.

    Raises:
        InputError: it has no tables, or files that are none, or other columns.
        ContractViolation: it does not meet its contract.
    """
    contract = contract_of(name)
    if contract is None or has_met(name, path):
        return
    if not list_tables(path):
        raise InputError(f"input {name} at {path} holds no Parquet file")
    for table, schema in require_parquet(f"input {name}", path):
        if faults := contract.schema_faults(schema):
            raise InputError(f"input {name}: {table} is not of its layout: {'; '.join(faults)}")
    result = check_artifact(name, path)
    if result.failures:
        raise ContractViolation(name, [str(failure) for failure in result.failures])


def require_parquet(what: str, path: Path) -> list[tuple[Path, pa.Schema]]:
    """The tables of an artifact with their columns; refuses files that are no Parquet.

    Raises:
        InputError: names the first such file.
    """
    try:
        return [(table, read_schema(table)) for table in table_paths(path)]
    except TableError as error:
        raise InputError(f"{what}: {error}") from None


def check_artifact(
    name: str,
    path: Path,
    related: Mapping[str, Path] | None = None,
    *,
    has_receipt: bool = False,
    evaluate: Evaluate = count_chunk,
) -> ContractResult:
    """Check every table of an artifact against its contract, as `check_table` does.

    Raises:
        InputError: a file cannot be read; names it, and the column where it is one.
    """
    try:
        contract = ARTIFACTS[name].contract
        return check_table(contract, path, related, has_receipt=has_receipt, evaluate=evaluate)
    except TableError as error:
        raise InputError(f"{name}: {error}") from None


def has_met(name: str, path: Path) -> bool:
    """Whether receipts say that an artifact met this very contract when it was made."""
    receipts, digest = receipts_of(name, path), contract_digest(ARTIFACTS[name].contract)
    return bool(receipts) and all(
        any(receipt.contracts.get(made_as) == digest for made_as in alike(name))
        for receipt in receipts.values()
    )


def check_drafts(
    step: str, inputs: Mapping[str, Path], drafts: Mapping[str, Path], metrics: Metrics
) -> tuple[dict[str, Path], Metrics, dict[str, str]]:
    """Check every draft that has a contract, and its joins to the step's other artifacts.

    Gives the paths to publish (a draft itself, or its copy without the failing rows), the metrics
    with those rows counted as quarantined, and the digests of the contracts that were met.

    Raises:
        ContractViolation: more rows fail than the contract's budget allows.
    """
    ready, met = dict(drafts), {}
    # The quarantine comes last: the others' failing rows have been added to it by then.
    for name in sorted(drafts, key=lambda name: name == QUARANTINE):
        if contract_of(name) is None:
            continue
        result = check_artifact(name, ready[name], {**inputs, **drafts})
        if result.failures:
            reasons = _failing_regions(name, result, ready)
            ready, dropped = _set_aside(step, name, ready, reasons)
            metrics = _recount(metrics, dropped)
        met[name] = contract_digest(ARTIFACTS[name].contract)
    return ready, metrics, met


def _failing_regions(
    name: str, result: ContractResult, drafts: Mapping[str, Path]
) -> dict[str, str]:
    """Region -> the first rule it breaks, if the table may lose these rows."""
    contract = contract_of(name)
    assert contract is not None
    reasons: dict[str, str] = {}
    for failure in result.failures:
        for key in failure.keys:
            reasons.setdefault(key, failure.rule)
    failures = [str(failure) for failure in result.failures]
    may_lose_rows = (
        contract.key == REGION_KEY
        and name != QUARANTINE
        and QUARANTINE in drafts
        and all(failure.keys for failure in result.failures)
    )
    if not may_lose_rows:
        raise ContractViolation(name, failures)
    num_failing = _num_rows(drafts[name], reasons)
    if num_failing > contract.budget * result.num_rows:
        share = f"{num_failing} of {result.num_rows} rows, the budget is {contract.budget:.1%}"
        raise ContractViolation(name, failures, f"Too many to set aside: {share}.")
    return reasons


def _num_rows(table: Path, reasons: Mapping[str, str]) -> int:
    """Rows of these regions; a region that comes twice has two."""
    keys = pa.array(list(reasons), type=pa.string())
    return sum(
        pc.sum(pc.is_in(batch.column(0), keys)).as_py() or 0
        for batch in read_batches(table, [REGION_KEY])
    )


def _set_aside(
    step: str, name: str, drafts: dict[str, Path], reasons: Mapping[str, str]
) -> tuple[dict[str, Path], Counter[str]]:
    """Copies of the table and of the quarantine with the failing rows moved; drafts stay whole.

    Gives the paths with the copies, and how many rows each rule took.
    """
    table, quarantine = (_copy_path(drafts[key]) for key in (name, QUARANTINE))
    _link_tree(drafts[name], table)
    dropped: list[Row] = []
    for path in table_paths(table):
        if _num_rows(path, reasons):
            dropped += _take_out(path, reasons)
    moved = [
        quarantine_row(
            step,
            row,
            ContractReason.BROKEN_RULE.of(reasons[row[REGION_KEY]]),
            f"contract of {name}",
        )
        for row in dropped
    ]
    write_quarantine(quarantine, [*read_rows(drafts[QUARANTINE]), *moved])
    return {**drafts, name: table, QUARANTINE: quarantine}, Counter(
        reasons[row[REGION_KEY]] for row in dropped
    )


def _take_out(path: Path, reasons: Mapping[str, str]) -> list[Row]:
    """Write a table anew without these regions; gives their rows."""
    schema = read_schema(path)
    original = path.rename(path.with_name(f".{path.name}.original"))  # a hard link of the draft's
    dropped = [row for row in read_rows(original) if row[REGION_KEY] in reasons]
    kept = (row for row in read_rows(original) if row[REGION_KEY] not in reasons)
    write_rows(path, kept, schema)
    original.unlink()
    return dropped


def _copy_path(draft: Path) -> Path:
    copy = draft.with_name(f"{draft.name}{CHECKED}")  # `open_drafts` removes those of killed runs
    assert not copy.exists(), f"{copy} was made twice"
    return copy


def _link_tree(source: Path, target: Path) -> None:
    shutil.copytree(
        source, target, copy_function=link_or_copy, ignore=shutil.ignore_patterns(WORK_FOLDER)
    )


def _recount(metrics: Metrics, dropped: Counter[str]) -> Metrics:
    changed = {
        name: metrics.get(name, 0) + count
        for rule, count in sorted(dropped.items())
        for name in (f"{REASON_PREFIX}{ContractReason.BROKEN_RULE.of(rule)}",)
    }
    if ROWS_OUT in metrics:
        changed[ROWS_OUT] = metrics[ROWS_OUT] - dropped.total()
        changed[ROWS_QUARANTINED] = metrics[ROWS_QUARANTINED] + dropped.total()
    return {**metrics, **changed}
