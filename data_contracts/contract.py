"""A contract: what an artifact promises, loaded without importing Great Expectations.

A contract is a module `data_contracts/<artifact>.py` with

- `KEY`: the column that names a row; `KEY_SCOPE`: "artifact" (the default), "file" or "none",
  within which it is unique;
- `SCHEMA`, and `BUDGET`: the share of rows that may be quarantined;
- `TOLERATED_ROWS`: how many rows may break a rule that need only hold mostly, in a small table too;
- `suite()`: the rules, standard column expectations with readable names;
- `prepare(chunk)`: columns derived for those rules, by name;
- `JOINS`: keys that must occur in other artifacts, checked where those are known;
- `survey(tables)`: as `prepare`, after a look at all tables (the splits of the data set);
- `READ`: the columns to read, if not all; `batches(path, columns)`: how they are read, if not as
  they stand; `schema_faults(schema)`: what is wrong with a table's schema, if it need not have
  exactly the declared types.
"""

import hashlib
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pyarrow as pa

from data_contracts.rules import Join

DEFAULT_BUDGET = 0.01


@dataclass(frozen=True)
class Contract:
    """A contract module, without importing Great Expectations."""

    artifact: str
    key: str
    budget: float
    module: ModuleType

    @property
    def schema(self) -> pa.Schema:
        """The columns that every table of the artifact must have."""
        return self.module.SCHEMA

    def schema_faults(self, schema: pa.Schema) -> list[str]:
        """What is wrong with a table's columns."""
        if hasattr(self.module, "schema_faults"):
            return list(self.module.schema_faults(schema))
        faults = {
            name: f"column {name} " + ("comes more than once" if how_often else "is missing")
            for name in self.schema.names
            if (how_often := schema.names.count(name)) != 1
        }
        return list(faults.values()) + [
            f"column {field.name} is {schema.field(field.name).type}, not {field.type}"
            for field in self.schema
            if field.name not in faults and not _fits(schema.field(field.name).type, field.type)
        ]

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return list(getattr(self.module, "READ", self.schema.names))

    @property
    def key_scope(self) -> str:
        """Within what the key is unique: "artifact", "file" or "none"."""
        return str(getattr(self.module, "KEY_SCOPE", "artifact"))

    @property
    def joins(self) -> Sequence[Join]:
        """Keys that must occur in other artifacts."""
        return tuple(getattr(self.module, "JOINS", ()))


def load_contract(artifact: str) -> Contract | None:
    """The contract of an artifact, or None if its form promises nothing."""
    if importlib.util.find_spec(f"data_contracts.{artifact}") is None:
        return None
    module = importlib.import_module(f"data_contracts.{artifact}")
    if not hasattr(module, "suite"):
        return None
    return Contract(artifact, module.KEY, getattr(module, "BUDGET", DEFAULT_BUDGET), module)


def contract_digest(artifact: str) -> str:
    """A digest of everything that decides a contract's outcome: a changed one is checked anew."""
    from pixclip import masks

    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(masks.__file__)]
    digests = [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources]
    return hashlib.sha256(" ".join([artifact, *digests]).encode()).hexdigest()


def _fits(found: pa.DataType, declared: pa.DataType) -> bool:
    # The name of a list's items ("item", "element") depends on who wrote the file.
    if pa.types.is_list(declared) and pa.types.is_list(found):
        return _fits(found.value_type, declared.value_type)
    return bool(found == declared)
