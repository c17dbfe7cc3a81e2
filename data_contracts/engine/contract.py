"""A contract: what an artifact promises, loaded without importing Great Expectations.

A contract is a module `data_contracts/<artifact>.py` with

- `KEY`: the column that names a row; `KEY_SCOPE`: "artifact" (the default), "file" or "none",
  within which it is unique;
- `SCHEMA`, and `BUDGET`: the share of rows that may be quarantined;
- `TOLERATED_ROWS`: how many rows may break a rule that need only hold mostly, in a small table too;
- `RULES`: the rules by readable name, made by `between`, `matches`, `is_in`, `holds`, `present`;
- `prepare(chunk)`: columns derived for those rules, by name;
- `parse(chunk)`, `PARSED`: as `prepare`, and the names of its columns, of truth values: dear to
  make, and decided by the row's own bytes, so that a receipt's word is taken for them;
- `survey(tables)`: as `prepare`, after a look at all tables (the splits of the data set);
- `JOINS`: keys that must occur in other artifacts, checked where those are known;
- `READ`: the columns to read, if not all; `batches(path, columns)`: how they are read, if not as
  they stand; `schema_faults(schema)`: what is wrong with a table's schema, if it need not have
  exactly the declared types.
"""

import ast
import hashlib
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pyarrow as pa

from data_contracts.engine.keys import Join
from data_contracts.engine.rules import Rule, holds, key_rules

DEFAULT_BUDGET = 0.01
PACKAGE = Path(__file__).parents[1]
CHECK = "data_contracts.engine.check"


@dataclass(frozen=True)
class Contract:
    """A contract module."""

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

    def rules(self, joins: Sequence[Join] = ()) -> dict[str, Rule]:
        """The rules by name, with those on the key, on required values and on these joins."""
        rules = key_rules(self.key, is_unique=self.key_scope != "none")
        return {**rules, **self.module.RULES, **{join.rule: holds(join.rule) for join in joins}}

    def parsed_rules(self, rules: Mapping[str, Rule]) -> dict[str, Rule]:
        """Those of the rules for which a receipt's word is taken."""
        parsed = getattr(self.module, "PARSED", ())
        return {name: rule for name, rule in rules.items() if rule.column in parsed}


def load_contract(artifact: str) -> Contract | None:
    """The contract of an artifact, or None if its form promises nothing."""
    if importlib.util.find_spec(f"data_contracts.{artifact}") is None:
        return None
    module = importlib.import_module(f"data_contracts.{artifact}")
    if not hasattr(module, "RULES"):
        return None
    return Contract(artifact, module.KEY, getattr(module, "BUDGET", DEFAULT_BUDGET), module)


def contract_digest(artifact: str) -> str:
    """A digest of what decides a contract's outcome: a changed one is checked anew.

    That is the source of the contract, of the engine, and of all modules of ours that they import.
    """
    sources = sources_of([f"data_contracts.{artifact}", CHECK])
    digests = [f"{name} {hashlib.sha256(source).hexdigest()}" for name, source in sources.items()]
    return hashlib.sha256("\n".join([artifact, *digests]).encode()).hexdigest()


def sources_of(modules: Sequence[str]) -> dict[str, bytes]:
    """The source of modules and of all modules of ours that they reach by imports, by name."""
    found: dict[str, bytes] = {}
    left = list(modules)
    while left:
        name = left.pop()
        source = _source(name) if name not in found else None
        if source is not None:
            found[name] = source
            left += _imports(source)
    return dict(sorted(found.items()))


def _source(module: str) -> bytes | None:
    """The source of a module of `data_contracts` or of the library; None if it is neither."""
    package, *rest = module.split(".")
    spec = importlib.util.find_spec("pixclip") if package == "pixclip" else None
    library = Path(spec.origin).parent if spec and spec.origin else None
    folder = PACKAGE if package == "data_contracts" else library
    if folder is None or not rest:
        return None
    path = folder.joinpath(*rest).with_suffix(".py")
    return path.read_bytes() if path.is_file() else None


@lru_cache(maxsize=256)
def _imports(source: bytes) -> tuple[str, ...]:
    """What a source imports, at its top or inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(names))


def _fits(found: pa.DataType, declared: pa.DataType) -> bool:
    # The name of a list's items ("item", "element") depends on who wrote the file.
    if pa.types.is_list(declared) and pa.types.is_list(found):
        return _fits(found.value_type, declared.value_type)
    return bool(found == declared)
