"""What became of every key of imported weights."""

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class UsedKey:
    """A key of the source that is in the model now."""

    source: str
    target: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class DroppedKey:
    """A key of the source that is known and not needed."""

    source: str
    reason: str


@dataclass(frozen=True)
class NewTensor:
    """A tensor of the model that the source has nothing for."""

    target: str
    start: str


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Every key of the source and every tensor of the model, each exactly once."""

    format: str
    file: str
    sha256: str
    used: tuple[UsedKey, ...]
    dropped: tuple[DroppedKey, ...]
    new: tuple[NewTensor, ...]
    assumed: tuple[str, ...]  # facts that neither the format nor the source tells

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON, with counts first."""
        counts = {
            "num_used": len(self.used),
            "num_dropped": len(self.dropped),
            "num_new": len(self.new),
        }
        return counts | dataclasses.asdict(self)
