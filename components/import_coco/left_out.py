"""What an import leaves out: every entry with its place and reason, none in silence."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from components.import_coco.values import BadValueError
from components.kernel.files import write_whole

FILE_NAME = "_left_out.jsonl"  # beside the records, whose readers pass it over; a line an entry
PREFIX = "left_out"


@dataclass
class LeftOut:
    """The entries left out so far."""

    entries: list[tuple[str, str, str]] = field(default_factory=list)  # place, reason, detail
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, place: str, reason: str, detail: str) -> None:
        """Leave out the entry at a place of a file."""
        self.entries.append((place, reason, detail))
        self.reasons[reason] += 1

    @contextmanager
    def judging(self, place: str) -> Iterator[None]:
        """Leave out the entry at a place if reading it fails."""
        try:
            yield
        except BadValueError as error:
            self.add(place, error.reason, error.detail)

    def first_of_each(self) -> str:
        """Each reason with its number and first example, for a message."""
        firsts: dict[str, str] = {}
        for place, reason, detail in self.entries:
            firsts.setdefault(
                reason, f"{place}: {detail}" if reason != "no_object" else f"{place} {detail}"
            )
        return "; ".join(
            f"{reason} {number} (first {firsts[reason]})"
            for reason, number in self.reasons.most_common()
        )

    def metrics(self) -> dict[str, int | float]:
        """The number of entries left out, in all and by reason."""
        by_reason = {f"{PREFIX}.{name}": number for name, number in sorted(self.reasons.items())}
        return {PREFIX: self.reasons.total(), **by_reason}

    def write(self, folder: Path) -> None:
        """Keep every entry in a file; no file if there is none."""
        if not self.entries:
            (folder / FILE_NAME).unlink(missing_ok=True)
            return
        names = ("place", "reason", "detail")
        lines = [json.dumps(dict(zip(names, entry, strict=True))) for entry in self.entries]
        write_whole(folder / FILE_NAME, "".join(f"{line}\n" for line in lines))
