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
- `PARSED_FROM`: the columns that `parse` alone looks at, which are then not read either;
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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.engine.rules import KEY_OCCURRENCES, NUM_MISSING, Rule, holds, key_rules
from data_contracts.engine.tables import (
    FILE_COLUMN,
    AddColumns,
    Columns,
    list_tables,
    read_chunks,
)

DEFAULT_BUDGET = 0.01
PACKAGE = Path(__file__).parents[1]
CHECK = "data_contracts.engine.check"


@dataclass(frozen=True)
class Join:
    """Every value of `column` must occur in the column `to` of another artifact."""

    rule: str
    column: str
    artifact: str
    to: str
    where: tuple[str, str] | None = None  # only the other artifact's rows with this value


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

    def columns(self, *, is_parsed: bool = False) -> list[str]:
        """The columns to read; those that only `parse` looks at are left out if that is done."""
        unread = getattr(self.module, "PARSED_FROM", ()) if is_parsed else ()
        names = getattr(self.module, "READ", self.schema.names)
        return [name for name in names if name not in unread]

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


Hashes = npt.NDArray[np.uint64]


def join_column(join: Join, other: Path) -> AddColumns:
    """Adds whether a row's value occurs in the other artifact."""
    known = hashes_of(list_tables(other), join.to, join.where)
    return lambda chunk: {join.rule: is_among(hash_keys(chunk, join.column), known)}


def missing_values(schema: pa.Schema) -> AddColumns:
    """Adds the number of missing required values of a row."""
    required = [field.name for field in schema if not field.nullable]

    def add(chunk: pa.Table) -> Columns:
        missing = np.zeros(len(chunk), dtype=np.int32)
        for name in required:
            if name in chunk.column_names and chunk[name].null_count:
                missing += chunk[name].is_null().to_numpy().astype(np.int32)
        return {NUM_MISSING: missing}

    return add


def key_occurrences(tables: Sequence[Path], key: str, is_unique_per_file: bool) -> AddColumns:
    """Adds how often a row's key occurs in all tables (or in its own file)."""
    found = [hash_keys(chunk, key) for chunk in read_chunks(tables, [key])]
    hashes = np.sort(np.concatenate([np.empty(0, dtype=np.uint64), *found]))
    suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    counts: Counter[tuple[int, object]] = Counter()

    def suspicious(chunk: pa.Table) -> list[tuple[int, tuple[int, object]]]:
        places = np.flatnonzero(is_among(hash_keys(chunk, key), suspects))
        names = chunk[key].take(pa.array(places)).to_pylist()
        files = chunk[FILE_COLUMN].to_numpy()[places] if is_unique_per_file else [0] * len(names)
        return list(zip(places.tolist(), zip(map(int, files), names, strict=True), strict=True))

    if len(suspects):  # equal hashes are only a suspicion: count the keys themselves
        for chunk in read_chunks(tables, [key]):
            counts.update(name for _, name in suspicious(chunk))

    def add(chunk: pa.Table) -> Columns:
        occurrences = np.ones(len(chunk), dtype=np.int64)
        if counts:
            for place, name in suspicious(chunk):
                occurrences[place] = counts[name]
        return {KEY_OCCURRENCES: occurrences}

    return add


def hash_keys(chunk: pa.Table, column: str) -> Hashes:
    """A 64-bit hash of every value of a column; only values of one process can be compared."""
    texts = chunk[column].cast(pa.string()).to_pylist()
    return np.fromiter(map(hash, texts), dtype=np.int64, count=len(texts)).view(np.uint64)


def hashes_of(tables: Sequence[Path], column: str, where: tuple[str, str] | None = None) -> Hashes:
    """The sorted, distinct hashes of a column; `where` = (column, value) selects rows."""
    columns = [column, *([where[0]] if where else [])]
    found = [np.empty(0, dtype=np.uint64)]
    for chunk in read_chunks(tables, columns):
        rows = chunk.filter(pc.equal(chunk[where[0]], where[1])) if where else chunk
        found.append(np.unique(hash_keys(rows, column)))
    return np.unique(np.concatenate(found))


def is_among(hashes: Hashes, sorted_hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Whether each hash is one of some sorted ones."""
    if not len(sorted_hashes):
        return np.zeros(len(hashes), dtype=bool)
    places = np.searchsorted(sorted_hashes, hashes).clip(max=len(sorted_hashes) - 1)
    return np.asarray(sorted_hashes[places] == hashes)
