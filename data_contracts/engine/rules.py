"""Rules on columns: what a contract demands, as data.

A rule is evaluated in two ways from this one definition: by Arrow (`failing_rows`), which costs no
import, and by Great Expectations (`expectation`), which also names and shows what fails. Missing
values, and NaN among numbers, pass every rule but `present`.
"""

import html
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.engine.columns import as_bools

Bools = npt.NDArray[np.bool_]
Value = str | bool
Limit = float | None
PRINTABLE = r"^[ -~]*$"  # Arrow's expressions and Python's think alike of these
NUM_MISSING, KEY_OCCURRENCES = "num_missing_values", "occurrences_of_key"


@dataclass(frozen=True)
class Rule(ABC):
    """What the values of a column must be, in so large a share of the rows."""

    column: str
    mostly: float = 1.0

    @abstractmethod
    def failing_rows(self, values: pa.Array) -> Bools:
        """Which of a column's values break the rule."""

    def num_missing(self, values: pa.Array) -> int:
        """How many values are passed over."""
        return int(np.count_nonzero(missing_rows(values)))

    def expectation(self, name: str) -> Any:
        """The rule for Great Expectations, under the name that is shown."""
        return self._expectation(column=self.column, mostly=self.mostly, meta={"rule": name})

    @abstractmethod
    def _expectation(self, **common: Any) -> Any: ...

    @abstractmethod
    def demand(self) -> str:
        """What is demanded, in words."""

    def described(self, name: str) -> str:
        """The rule's name and what it demands, safe to put into a page."""
        share = f" in {self.mostly:.0%} of the rows" if self.mostly < 1 else ""
        text = html.escape(f"{name}: {self.column} {self.demand()}{share}")
        return text.replace("$", "&#36;")  # a dollar sign begins a placeholder


@dataclass(frozen=True)
class Present(Rule):
    """A value is there."""

    def failing_rows(self, values: pa.Array) -> Bools:
        """Which values are missing."""
        return missing_rows(values)

    def num_missing(self, values: pa.Array) -> int:
        """None is passed over."""
        return 0

    def _expectation(self, **common: Any) -> Any:
        from great_expectations import expectations as gxe

        return gxe.ExpectColumnValuesToNotBeNull(**common)

    def demand(self) -> str:
        """What is demanded, in words."""
        return "present"


@dataclass(frozen=True, kw_only=True)
class Between(Rule):
    """A number is within limits; `is_above` leaves out the lower one itself."""

    lowest: Limit = None
    highest: Limit = None
    is_above: bool = False

    def failing_rows(self, values: pa.Array) -> Bools:
        """Which numbers are too low or too high."""
        failing = np.zeros(len(values), dtype=bool)
        if self.lowest is not None:
            is_low = pc.less_equal if self.is_above else pc.less
            failing |= as_bools(is_low(values, self.lowest))
        if self.highest is not None:
            failing |= as_bools(pc.greater(values, self.highest))
        return failing

    def _expectation(self, **common: Any) -> Any:
        from great_expectations import expectations as gxe

        return gxe.ExpectColumnValuesToBeBetween(
            min_value=self.lowest, max_value=self.highest, strict_min=self.is_above, **common
        )

    def demand(self) -> str:
        """What is demanded, in words."""
        limits = (("at least", self.lowest), ("at most", self.highest))
        return " ".join(f"{said} {float(limit)}" for said, limit in limits if limit is not None)


@dataclass(frozen=True, kw_only=True)
class Matches(Rule):
    """A text holds what the regular expression says."""

    regex: str

    def failing_rows(self, values: pa.Array) -> Bools:
        """Which texts do not match."""
        failing = ~as_bools(pc.match_substring_regex(values, self.regex)) & ~missing_rows(values)
        for row in _unprintable_rows(values):  # Arrow's RE2 and Python differ on those
            failing[row] = re.search(self.regex, values[row].as_py()) is None
        return failing

    def _expectation(self, **common: Any) -> Any:
        from great_expectations import expectations as gxe

        return gxe.ExpectColumnValuesToMatchRegex(regex=self.regex, **common)

    def demand(self) -> str:
        """What is demanded, in words."""
        return f"like {self.regex}"


@dataclass(frozen=True, kw_only=True)
class IsIn(Rule):
    """A value is one of a few."""

    values: tuple[Value, ...]

    def failing_rows(self, values: pa.Array) -> Bools:
        """Which values are none of those."""
        known = pa.array(self.values, type=values.type)
        return ~as_bools(pc.is_in(values, value_set=known)) & ~missing_rows(values)

    def _expectation(self, **common: Any) -> Any:
        from great_expectations import expectations as gxe

        return gxe.ExpectColumnValuesToBeInSet(value_set=list(self.values), **common)

    def demand(self) -> str:
        """What is demanded, in words."""
        return "one of " + ", ".join(repr(value) for value in self.values)


def present(column: str, mostly: float = 1.0) -> Rule:
    """A value is there."""
    return Present(column, mostly)


def between(
    column: str, lowest: Limit = None, highest: Limit = None, *, above: Limit = None,
    mostly: float = 1.0,
) -> Rule:  # fmt: skip
    """A number is at least `lowest` and at most `highest`, or larger than `above`."""
    return Between(
        column,
        mostly,
        lowest=lowest if above is None else above,
        highest=highest,
        is_above=above is not None,
    )


def matches(column: str, regex: str) -> Rule:
    """A text holds what the regular expression says, which RE2 must understand."""
    return Matches(column, regex=regex)


def is_in(column: str, *values: Value, mostly: float = 1.0) -> Rule:
    """A value is one of these."""
    return IsIn(column, mostly, values=values)


def holds(column: str, is_true: bool = True, mostly: float = 1.0) -> Rule:
    """A derived column of truth values is true (or false) in every row."""
    return IsIn(column, mostly, values=(is_true,))


def missing_rows(values: pa.Array) -> Bools:
    """Which values are missing or NaN."""
    if not values.null_count and not pa.types.is_floating(values.type):
        return np.zeros(len(values), dtype=bool)
    return as_bools(pc.is_null(values, nan_is_null=True))


def _unprintable_rows(texts: pa.Array) -> list[int]:
    """The rows with anything but printable ASCII."""
    characters = np.frombuffer(texts.buffers()[2] or b"", dtype=np.uint8)
    if characters.min(initial=32) >= 32 and characters.max(initial=126) <= 126:
        return []
    is_printable = as_bools(pc.match_substring_regex(texts, PRINTABLE))
    return np.flatnonzero(~is_printable & ~missing_rows(texts)).tolist()


def key_rules(key: str, is_unique: bool) -> dict[str, Rule]:
    """The rules on a contract's key and on required values."""
    rules = {
        f"{key}_present": present(key),
        "required_values_present": between(NUM_MISSING, highest=0),
    }
    return {**rules, f"{key}_unique": between(KEY_OCCURRENCES, highest=1)} if is_unique else rules
