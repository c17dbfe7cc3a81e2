"""What the steps share that ask about regions: rows in; rows with texts, and a ledger, out."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from components.core.counts import ROWS_IN, ROWS_OUT, reasons_in
from components.core.errors import GateError
from components.core.progress import progress
from components.core.state import state_folder
from components.core.step import Metrics
from components.core.tables import WORK_FOLDER, count_rows
from components.data.describe.outcomes import Ledger, OutcomeWriter, StageAccount
from components.data.describe.scenes import (
    Outcome,
    PendingScene,
    Rejection,
    Scene,
    read_scenes,
    unreadable,
)
from components.data.describe.settings import DescriberSettings, EngineSettings
from components.data.llm.cache import AnswerFiles
from pixclip.images import ImageError

if TYPE_CHECKING:
    from components.data.describe.flow import RegionFlow

ANSWERS = "answers"  # the folder beside the ledgers
OnRegion = Callable[[Outcome], None]
FindFlow = Callable[[], "type[RegionFlow]"]


class SceneDescriber(Protocol):
    """Describes scenes without asking anybody."""

    def describe(self, scene: Scene) -> Sequence[Outcome]:
        """One outcome for each region of the scene."""
        ...


@dataclass(frozen=True)
class Places:
    """What a describer reads, and where its ledger goes."""

    regions: Path
    images: Path
    ledger: Path


def require_accepted_share(metrics: Mapping[str, int | float], settings: DescriberSettings) -> None:
    """Refuse a result that lost nearly everything.

    Raises:
        GateError: fewer than the set share of the regions were accepted.
    """
    num_accepted, num_regions = metrics[ROWS_OUT], metrics[ROWS_IN]
    if num_accepted < settings.min_accepted_share * num_regions:
        raise GateError(
            f"{settings.step}: only {num_accepted} of {num_regions} regions were accepted, "
            f"less than the share of {settings.min_accepted_share}",
            reasons_in(metrics),
            "Look at the details in the draft of the quarantine; check models and prompts, or "
            f"lower {settings.step}.min_accepted_share: no answer is asked for again.",
        )


def describe_regions(
    places: Places,
    writer: OutcomeWriter,
    settings: EngineSettings,
    embedded: SceneDescriber,
    find_flow: FindFlow,
) -> Metrics:
    """Describe every region by the embedded describer or by endpoints, as the settings say.

    `find_flow` imports what asks servers, which is heavy.
    """
    started = time.monotonic()
    scenes = read_scenes(places.regions, places.images)
    with _region_bar(settings.step, count_rows(places.regions)) as on_region:
        if settings.describer == "embedded":
            stages = _describe_embedded(scenes, embedded, writer, on_region)
        else:
            kept = _answer_files(settings, places, writer.folder)
            stages = _describe_by_endpoints(scenes, settings, find_flow(), kept, writer, on_region)
    writer.finish()
    wall_seconds = time.monotonic() - started
    _book(settings, writer, stages, wall_seconds).write(places.ledger)
    return writer.metrics()


def _describe_embedded(
    scenes: Iterable[PendingScene],
    describer: SceneDescriber,
    writer: OutcomeWriter,
    on_region: OnRegion,
) -> Mapping[str, StageAccount]:
    for index, scene in enumerate(scenes):
        try:
            outcomes = [*scene.damaged, *describer.describe(scene.load())]
        except ImageError as error:
            outcomes = [*scene.damaged, *unreadable(scene, error)]
        for outcome in outcomes:
            on_region(outcome)
        writer.add(index, scene.rows, outcomes)
    return {}


def _describe_by_endpoints(
    scenes: Iterable[PendingScene],
    settings: EngineSettings,
    flow: "type[RegionFlow]",
    kept: AnswerFiles,
    writer: OutcomeWriter,
    on_region: OnRegion,
) -> Mapping[str, StageAccount]:
    from components.data.describe.pipeline import describe_scenes

    accounts = describe_scenes(
        scenes,
        settings,
        flow,
        kept,
        deliver=lambda index, scene, outcomes: writer.add(index, scene.rows, outcomes),
        on_region=on_region,
    )
    return {str(name): account for name, account in accounts.items()}


def _answer_files(settings: EngineSettings, places: Places, folder_out: Path) -> AnswerFiles:
    """Where the answers of a group are kept for good: each of them was paid for.

    A file for each group, so that groups which run at the same time do not share one. The version
    before this one kept them in a database, in the draft where no folder was named.
    """
    group = places.regions.name
    if settings.cache_folder:
        folder = Path(settings.cache_folder)
        return AnswerFiles(folder / f"{group}.jsonl", folder / f"{group}.sqlite")
    state = state_folder()
    folder = state / settings.step / ANSWERS if state else places.ledger.parent / ANSWERS
    return AnswerFiles(folder / f"{group}.jsonl", folder_out / WORK_FOLDER / "answers.sqlite")


def _book(
    settings: EngineSettings,
    writer: OutcomeWriter,
    stages: Mapping[str, StageAccount],
    wall_seconds: float,
) -> Ledger:
    total = writer.usage
    if settings.describer == "embedded":
        total = replace(total, seconds=wall_seconds)  # it waits for nobody: its time is the run's
    return Ledger(
        settings.describer,
        writer.num_accepted,
        writer.reasons,
        total,
        stages,
        wall_seconds,
        writer.told(),
    )


@contextmanager
def _region_bar(title: str, num_regions: int) -> Iterator[OnRegion]:
    """A progress bar over regions that also shows the rejected ones."""
    num_rejected = 0
    with progress(title, total=num_regions) as bar:

        def count(outcome: Outcome) -> None:
            nonlocal num_rejected
            num_rejected += isinstance(outcome, Rejection)
            bar.set_postfix(rejected=num_rejected, refresh=False)
            bar.update(1)

        yield count
