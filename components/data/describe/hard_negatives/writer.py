"""Caption rows with their wrong captions, and what was left out with its reason; no row is lost."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from components.core.counts import region_counts
from components.core.files import write_whole
from components.core.receipts import read_receipt
from components.core.step import Metrics
from components.core.tables import Row
from components.data.describe.outcomes import OutcomeWriter, add_usage, provenance_of
from components.data.describe.scenes import Contrast, Outcome, Rejection
from data_contracts.contrasted import SCHEMA
from data_contracts.reasons import is_known

LEFT_OUT_NAME = "_left_out.jsonl"
NUM_NEGATIVES, LEFT_OUT = "negatives", "negatives.left_out."
NUM_WITHOUT, WITHOUT = "regions_without_negatives", "regions_without_negatives."
COSTS = ("num_requests", "prompt_tokens", "completion_tokens", "cost_usd")


def without_of(reason: str) -> str:
    """The metric that counts regions without a wrong caption for a reason."""
    return f"{WITHOUT}{reason}"


class ContrastWriter(OutcomeWriter):
    """Every row stays, with its wrong captions; those left out stand in `_left_out.jsonl`.

    The costs in rows and metrics are those of describing and of contrasting together.
    """

    def __init__(self, contrasted: Path, captions: Path, step: str) -> None:
        super().__init__(contrasted, SCHEMA)
        self._captions, self._step = captions, step
        self._num_negatives = 0
        self._without: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._lines: list[str] = []

    def finish(self) -> None:
        """Write what is left, and what was left out."""
        super().finish()
        write_whole(self.folder / LEFT_OUT_NAME, "".join(self._lines))

    def metrics(self) -> Metrics:
        """Counts of what was done; the same for the same answers."""
        receipt = read_receipt(self._captions)
        before = receipt.metrics if receipt else {}
        now = self.usage
        own = (now.num_requests, now.prompt_tokens, now.completion_tokens, now.cost_usd)
        costs = {
            name: round(before.get(name, 0) + cost, 9)
            for name, cost in zip(COSTS, own, strict=True)
        }
        return region_counts(
            self.num_accepted, self.num_accepted, self.reasons, **self._counts(), **costs
        )

    def told(self) -> Mapping[str, object]:
        """What the ledger says besides."""
        return self._counts()

    def _counts(self) -> dict[str, int]:
        return {
            NUM_NEGATIVES: self._num_negatives,
            **{f"{LEFT_OUT}{reason}": n for reason, n in sorted(self._left_out.items())},
            NUM_WITHOUT: self._without.total(),
            **{without_of(reason): n for reason, n in sorted(self._without.items())},
        }

    def _take(self, row: Row, outcome: Outcome) -> None:
        if isinstance(outcome, Rejection):  # no answer, or no image: the region stays all the same
            outcome = Contrast(
                outcome.region_id,
                without=outcome.reason,
                provenance=outcome.provenance,
                usage=outcome.usage,
            )
        assert isinstance(outcome, Contrast)
        self.usage = add_usage(self.usage, outcome.usage)
        self._num_negatives += len(outcome.negatives)
        if not outcome.negatives:
            self._without[self._known(outcome.without)] += 1
        for left_out in outcome.left_out:
            self._left_out[self._known(left_out.reason)] += 1
            told = {
                "region_id": row["region_id"],
                "caption": row["short_caption"],
                "wrong": left_out.text,
                "reason": left_out.reason,
                "detail": left_out.detail,
            }
            self._lines.append(json.dumps(told, ensure_ascii=False) + "\n")
        self._keep({**row, **_columns(row, outcome)})

    def _known(self, reason: str) -> str:
        assert is_known(self._step, reason), f"describe {reason!r} in data_contracts/reasons"
        return str(reason)


def _columns(row: Row, contrast: Contrast) -> Row:
    usage = contrast.usage
    said = {**json.loads(row["provenance"]), **provenance_of(contrast.provenance)}
    return {
        "hard_negatives": list(contrast.negatives),
        "provenance": json.dumps(said, sort_keys=True, ensure_ascii=False),
        "prompt_tokens": row["prompt_tokens"] + usage.prompt_tokens,
        "completion_tokens": row["completion_tokens"] + usage.completion_tokens,
        "cost_usd": round(row["cost_usd"] + usage.cost_usd, 9),
    }
