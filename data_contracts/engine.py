"""Check tables against their contracts with Great Expectations.

A contract is a module `data_contracts/<artifact>.py` with `KEY` (the column that names a row),
`SCHEMA`, `BUDGET` (the share of rows that may be quarantined) and `suite()`.
"""

import hashlib
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

DEFAULT_BUDGET = 0.01


@dataclass(frozen=True)
class RuleFailure:
    """A rule that rows of a table break; no `keys` means that the table as a whole breaks it."""

    rule: str
    num_rows: int
    keys: tuple[str, ...]
    examples: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.examples[:3])
        return f"{self.rule}: {self.num_rows} row(s)" + (f", e.g. {shown}" if shown else "")


@dataclass(frozen=True)
class ContractResult:
    """The outcome of checking one artifact."""

    artifact: str
    num_rows: int
    failures: tuple[RuleFailure, ...]


@dataclass(frozen=True)
class Contract:
    """A contract module, without importing Great Expectations."""

    artifact: str
    key: str
    budget: float
    module: ModuleType


def load_contract(artifact: str) -> Contract | None:
    """The contract of an artifact, or None if its form promises nothing."""
    if importlib.util.find_spec(f"data_contracts.{artifact}") is None:
        return None
    module = importlib.import_module(f"data_contracts.{artifact}")
    if not hasattr(module, "suite"):
        return None
    return Contract(artifact, module.KEY, getattr(module, "BUDGET", DEFAULT_BUDGET), module)


def contract_digest(artifact: str) -> str:
    """A digest of the contract's source: a changed contract is checked anew."""
    module: Any = importlib.import_module(f"data_contracts.{artifact}")
    return hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()


def check_table(artifact: str, path: Path) -> ContractResult:
    """Check every table of an artifact, shard by shard in bounded memory."""
    raise NotImplementedError
