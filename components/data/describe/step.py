"""The step `describe`: region rows in, verified captions out."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from components.core.counts import ROWS_IN, ROWS_OUT, reasons_in
from components.core.errors import GateError
from components.core.progress import progress
from components.core.state import state_folder
from components.core.step import In, Metrics, Out, Work, step
from components.core.tables import WORK_FOLDER, count_rows
from components.data.describe.outcomes import STEP, Ledger, OutcomeWriter, StageAccount
from components.data.describe.scenes import Outcome, Rejection, read_scenes, unreadable
from components.data.describe.settings import DescribeSettings
from components.data.llm.cache import AnswerFiles
from pixclip.images import ImageError

ANSWERS = "answers"  # the folder beside the ledgers
OnRegion = Callable[[Outcome], None]


def require_accepted_share(metrics: Mapping[str, int | float], settings: DescribeSettings) -> None:
    """Refuse a result that lost nearly everything.

    Raises:
        GateError: fewer than the set share of the regions were accepted.
    """
    num_accepted, num_regions = metrics[ROWS_OUT], metrics[ROWS_IN]
    if num_accepted < settings.min_accepted_share * num_regions:
        raise GateError(
            f"describe: only {num_accepted} of {num_regions} regions were accepted, "
            f"less than the share of {settings.min_accepted_share}",
            reasons_in(metrics),
            "Look at the details in the draft of the quarantine; check models and prompts, or "
            "lower describe.min_accepted_share: no answer is asked for again.",
        )


@step(image="annotate", version=2, gate=require_accepted_share, work=Work.PORTABLE)
def describe(
    regions: In,
    images: In,
    captions: Out,
    quarantine: Out,
    ledger: Out,
    settings: DescribeSettings,
) -> Metrics:
    """Describe every region in stages and verify it.

    Object caption, verification against the image, context caption, long and short caption, and a
    last check that the merge kept object and location. Rejected regions go to the quarantine with
    the verifier's reason. Every answer is kept: a killed run goes on without asking it again.
    """
    started = time.monotonic()
    captions.mkdir(parents=True, exist_ok=True)
    writer = OutcomeWriter(captions, quarantine)
    with _region_bar(count_rows(regions)) as on_region:
        if settings.describer == "embedded":
            stages = _describe_embedded(regions, images, settings, writer, on_region)
        else:
            kept = _answer_files(settings, regions, captions, ledger)
            stages = _describe_by_endpoints(regions, images, settings, kept, writer, on_region)
    writer.finish()
    wall_seconds = time.monotonic() - started
    _book(settings, writer, stages, wall_seconds).write(ledger)
    return writer.metrics()


def _describe_embedded(
    regions: Path,
    images: Path,
    settings: DescribeSettings,
    writer: OutcomeWriter,
    on_region: OnRegion,
) -> Mapping[str, StageAccount]:
    from components.data.describe.embedded import EmbeddedDescriber

    describer = EmbeddedDescriber(settings.word_limits)
    for index, scene in enumerate(read_scenes(regions, images)):
        try:
            outcomes = [*scene.damaged, *describer.describe(scene.load())]
        except ImageError as error:
            outcomes = [*scene.damaged, *unreadable(scene, error)]
        for outcome in outcomes:
            on_region(outcome)
        writer.add(index, scene.rows, outcomes)
    return {}


def _describe_by_endpoints(
    regions: Path,
    images: Path,
    settings: DescribeSettings,
    kept: AnswerFiles,
    writer: OutcomeWriter,
    on_region: OnRegion,
) -> Mapping[str, StageAccount]:
    from components.data.describe.pipeline import describe_scenes

    accounts = describe_scenes(
        read_scenes(regions, images),
        settings,
        kept,
        deliver=lambda index, scene, outcomes: writer.add(index, scene.rows, outcomes),
        on_region=on_region,
    )
    return {str(name): account for name, account in accounts.items()}


def _answer_files(
    settings: DescribeSettings, regions: Path, captions: Path, ledger: Path
) -> AnswerFiles:
    """Where the answers of a group are kept for good: each of them was paid for.

    A file for each group, so that groups which run at the same time do not share one. The version
    before this one kept them in a database, in the draft where no folder was named.
    """
    if settings.cache_folder:
        folder = Path(settings.cache_folder)
        return AnswerFiles(folder / f"{regions.name}.jsonl", folder / f"{regions.name}.sqlite")
    state = state_folder()
    folder = state / STEP / ANSWERS if state else ledger.parent / ANSWERS
    return AnswerFiles(folder / f"{regions.name}.jsonl", captions / WORK_FOLDER / "answers.sqlite")


def _book(
    settings: DescribeSettings,
    writer: OutcomeWriter,
    stages: Mapping[str, StageAccount],
    wall_seconds: float,
) -> Ledger:
    total = writer.usage
    if settings.describer == "embedded":
        total = replace(total, seconds=wall_seconds)  # it waits for nobody: its time is the run's
    return Ledger(
        settings.describer, writer.num_accepted, writer.reasons, total, stages, wall_seconds
    )


@contextmanager
def _region_bar(num_regions: int) -> Iterator[OnRegion]:
    """A progress bar over regions that also shows the rejected ones."""
    num_rejected = 0
    with progress("describe", total=num_regions) as bar:

        def count(outcome: Outcome) -> None:
            nonlocal num_rejected
            num_rejected += isinstance(outcome, Rejection)
            bar.set_postfix(rejected=num_rejected, refresh=False)
            bar.update(1)

        yield count
