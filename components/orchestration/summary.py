"""The closing table of a run: what went in, what came out, what was lost where, and the cost.

Of a training: the model's numbers beside its baselines, the policy's word, the pages.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.counts import ROWS_FOUND, ROWS_IN, ROWS_OUT
from components.core.errors import InputError
from components.core.receipts import Receipt, read_receipt
from components.core.tables import groups_of, read_rows
from components.data.pack.settings import DATASETS
from components.data.pack.statistics import count_reasons, mean_words
from pixclip.data.layout import CARD_NAME, MANIFEST_NAME, REPORT_NAME
from pixclip.evaluation.protocol import SCENE_ACCURACY, SUBSETS, Question
from pixclip.json_files import JsonError, read_json_object

if TYPE_CHECKING:
    from rich.console import RenderableType

# Folders with receipts of steps that regions pass, in the order of the run, before the data set's.
FOLDERS = (
    *("grit", "records", "images", "candidates", "uncontaminated", "detected"),
    *("regions", "captions", "contrasted"),
)
SHOWN_FILES = (MANIFEST_NAME, CARD_NAME, REPORT_NAME)  # of the data set
SHOWN_PATHS = ("quarantine", "data_docs", "exports", "publication")


@dataclass(frozen=True)
class StepLine:
    """One step's account: regions in and out by its receipts, reasons by its quarantine files."""

    step: str
    regions_in: int
    regions_out: int
    reasons: Counter[str]
    regions_found: int = 0

    @property
    def is_balanced(self) -> bool:
        """Whether nothing disappeared."""
        taken = self.regions_in + self.regions_found
        return taken == self.regions_out + self.reasons.total()


@dataclass(frozen=True)
class Cost:
    """What describing took, summed over the groups."""

    num_accepted: int
    num_requests: int
    seconds: float
    cost_usd: float


@dataclass(frozen=True)
class Summary:
    """All that the closing table says."""

    run: Path
    dataset: str  # empty: none was packed yet
    steps: tuple[StepLine, ...]
    splits: Counter[str]  # regions
    long_words: Counter[int]
    cost: Cost | None
    paths: tuple[Path, ...]


def summarise(run: Path) -> Summary:
    """Read a run folder's receipts, quarantine, manifest and ledgers.

    Raises:
        InputError: no step has finished there.
    """
    dataset = find_dataset(run)
    steps = tuple(_step_lines(run))
    if not steps:
        raise InputError(f"{run} holds no finished step; run `make demo` or the DAG first")
    splits, long_words = _count_manifest(run / dataset / MANIFEST_NAME)
    packed = [f"{dataset}/{name}" for name in SHOWN_FILES] if dataset else []
    names = ("grit", *packed, *SHOWN_PATHS)
    paths = tuple(run / name for name in names if (run / name).exists())
    return Summary(run, dataset, steps, splits, long_words, read_cost(run / "ledger"), paths)


def find_dataset(run: Path) -> str:
    """The data set that a run has packed, which is its folder's name; empty if none."""
    return next((name for name in DATASETS if (run / name).is_dir()), "")


def _step_lines(run: Path) -> Iterator[StepLine]:
    reasons = count_reasons(run / "quarantine")
    for folder in (*FOLDERS, *DATASETS):
        counted = [receipt for receipt in _receipts(run / folder) if ROWS_IN in receipt.metrics]
        if counted:
            regions_in, regions_out, found = (
                sum(int(receipt.metrics.get(name, 0)) for receipt in counted)
                for name in (ROWS_IN, ROWS_OUT, ROWS_FOUND)
            )
            step = counted[0].step
            yield StepLine(step, regions_in, regions_out, reasons.get(step, Counter()), found)


def _receipts(folder: Path) -> list[Receipt]:
    """A global step's receipt, or those of a step's groups."""
    if not folder.is_dir():
        return []
    found = [read_receipt(folder)] + [read_receipt(folder / group) for group in groups_of(folder)]
    return [receipt for receipt in found if receipt]


def _count_manifest(manifest: Path) -> tuple[Counter[str], Counter[int]]:
    splits, words = Counter[str](), Counter[int]()
    if manifest.exists():
        for row in read_rows(manifest, ["split", "long_caption_words"]):
            splits[row["split"]] += 1
            words[row["long_caption_words"]] += 1
    return splits, words


def read_cost(ledgers: Path) -> Cost | None:
    """What describing all groups took; None if none was described.

    Raises:
        InputError: a ledger is damaged.
    """
    accounts = [_read_account(path) for path in sorted(ledgers.glob("*.json"))]
    if not accounts:
        return None
    return Cost(
        num_accepted=sum(account.num_accepted for account in accounts),
        num_requests=sum(account.num_requests for account in accounts),
        seconds=sum(account.seconds for account in accounts),
        cost_usd=sum(account.cost_usd for account in accounts),
    )


def _read_account(path: Path) -> Cost:
    """What describing one group took.

    Raises:
        InputError: the ledger is damaged.
    """
    try:
        account = read_json_object(path)
        total = account["total"]
        return Cost(
            num_accepted=int(account["accepted"]),
            num_requests=int(total["requests"]),
            seconds=float(total["seconds"]),
            cost_usd=float(total["cost_usd"]),
        )
    except JsonError as error:
        raise InputError(f"the ledger {error}; run describe again") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the ledger {path} is damaged: {error!r}; run describe again") from None


def render(summary: Summary) -> "RenderableType":
    """The summary as a rich renderable."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    title = DATASETS[summary.dataset].title if summary.dataset else "No data set yet"
    table = Table(title=escape(f"{title} · {summary.run}"), title_justify="left")
    table.add_column("step", no_wrap=True)
    for name in ("regions in", "out", "quarantined"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("by reason")
    for line in summary.steps:
        lost = str(line.reasons.total()) if line.is_balanced else f"{line.reasons.total()} (!)"
        found = f" + {line.regions_found:,}" if line.regions_found else ""
        counts = f"{line.regions_in:,}{found}", f"{line.regions_out:,}", lost
        table.add_row(line.step, *counts, escape(_ranked(line.reasons)))
    facts = Table.grid(padding=(0, 2))
    for name, text in _facts(summary):
        facts.add_row(name, escape(text))
    return Group(table, facts)


def _facts(summary: Summary) -> Iterator[tuple[str, str]]:
    unbalanced = [line.step for line in summary.steps if not line.is_balanced]
    yield (
        "regions in = out + quarantined",
        f"NOT at {', '.join(unbalanced)}" if unbalanced else "at every step",
    )
    if summary.splits:
        yield "regions by split", _ranked(summary.splits)
        words = summary.long_words
        yield (
            "words per long caption",
            f"mean {mean_words(words):.1f}, min {min(words)}, max {max(words)}",
        )
    if summary.cost and summary.cost.num_accepted:
        cost, accepted = summary.cost, summary.cost.num_accepted
        yield "seconds per accepted region", f"{cost.seconds / accepted:.3f} (describing)"
        yield "cost per accepted region", f"{cost.cost_usd / accepted:.6f} US dollars"
        yield "requests", f"{cost.num_requests:,}"
    yield from _path_lines(summary.paths)


def _path_lines(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for index, path in enumerate(paths):
        yield "" if index else "look at", str(path)


def _ranked(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


ARTIFACTS = ("checkpoint", "evaluation", "registration", "promotion")
SHOWN_METRICS = (
    SCENE_ACCURACY,
    *(
        question.recall_at(1)
        for question in (Question.MASK_TO_TEXT, Question.TEXT_TO_MASK, Question.IMAGE_TO_TEXT)
    ),
)
PAGES = {"evaluation": "evaluation.html", "promotion": "report.html"}


def find_results(run: Path) -> dict[str, Path]:
    """The artifacts of training that a run folder has."""
    return {name: run / name for name in ARTIFACTS if (run / name).is_dir()}


def render_results(artifacts: Mapping[str, Path]) -> "RenderableType":
    """Numbers, decision and places as a rich renderable."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in _facts_results(artifacts):
        facts.add_row(name, escape(text))
    parts: list[RenderableType] = [facts]
    if "evaluation" in artifacts:
        parts.insert(0, _numbers(json.loads(_read(artifacts["evaluation"], "evaluation.json"))))
    return Group(*parts)


def _numbers(evaluation: Mapping[str, Any]) -> Any:
    from rich.table import Table

    data = evaluation["data"]
    title = f"{evaluation['protocol']} · {data['num_regions']} regions, {data['num_images']} images"
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for metric in SHOWN_METRICS:
        table.add_column(metric.replace("_", " "), justify="right")
    for name, numbers in _rows(evaluation):
        values = [numbers.get(metric) for metric in SHOWN_METRICS]
        table.add_row(name, *("" if value is None else f"{value:.3f}" for value in values))
    return table


def _rows(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float]]]:
    for subset in SUBSETS:
        if subset in evaluation["metrics"]:
            yield subset.replace("_", " "), evaluation["metrics"][subset]
    yield "chance", evaluation.get("chance", {}).get("all", {})
    for name, subsets in evaluation.get("baselines", {}).items():
        yield f"baseline {name.replace('_', ' ')}", subsets["all"]


def _facts_results(artifacts: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    if "promotion" in artifacts:
        report = json.loads(_read(artifacts["promotion"], "report.json"))
        yield "decision", report["headline"]
        yield "because", report["reason"]
    for name, path in artifacts.items():
        page = path / PAGES.get(name, "")
        yield name, os.path.relpath(page if page.exists() else path)


def _read(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")
