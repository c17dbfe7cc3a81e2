"""Ask every stage for every region, whatever the stage before it would have decided.

The step stops at a region's first unusable answer, and a model this small gives many. To see all
five requests on real servers, the texts of earlier stages come from the embedded describer here.
Requests, prompts, schemas, validation, repair and cache are those of the step.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from report import StageReport

from components.data.describe.answers import SCHEMAS, InvalidAnswerError, parse_answer
from components.data.describe.embedded import EmbeddedDescriber
from components.data.describe.flow import ObjectFlow, region_facts, samples_of
from components.data.describe.pictures import Pictures
from components.data.describe.pipeline import build_stages
from components.data.describe.scenes import Description, PendingScene, Region
from components.data.describe.settings import DescribeSettings
from components.data.describe.stage import Context, RegionState, Stage
from components.data.llm.cache import AnswerCache, RawAnswer
from components.data.llm.client import ChatClient, Taker
from components.data.llm.gates import DroppedError
from components.data.llm.settings import StageName

Item = tuple[PendingScene, Region, dict[str, str]]
Stages = dict[StageName, StageReport]


class RecordingClient:
    """The real client; notes of every answer whether it is whole and fits the schema."""

    def __init__(self, client: ChatClient, stages: Stages) -> None:
        self._client, self._stages = client, stages

    async def ask(self, name: StageName, body: bytes, taker: Taker) -> RawAnswer:
        """Ask and note."""
        answer = await self._client.ask(name, body, taker)
        stage = self._stages[name]
        stage.requests += 1
        stage.prompt_tokens += answer.prompt_tokens
        stage.completion_tokens += answer.completion_tokens
        is_cut_off = answer.finish_reason == "length"
        stage.cut_off += is_cut_off
        try:
            parse_answer(answer.content, is_cut_off, SCHEMAS[name])
        except InvalidAnswerError:
            return answer
        stage.valid_json += 1
        return answer


def ask_every_stage(
    scenes: Sequence[PendingScene], settings: DescribeSettings, cache_path: Path
) -> Stages:
    """One report for each stage."""
    return asyncio.run(_ask_all(_items(scenes, settings), settings, cache_path))


def _items(scenes: Sequence[PendingScene], settings: DescribeSettings) -> list[Item]:
    describer = EmbeddedDescriber(settings.word_limits)
    return [
        (scene, region, _texts(region, outcome))
        for scene in scenes
        for region, outcome in zip(scene.regions, describer.describe(scene.load()), strict=True)
        if isinstance(outcome, Description)
    ]


def _texts(region: Region, description: Description) -> dict[str, str]:
    names = ("object_caption", "context_caption", "long_caption")
    known = {"phrase": region.phrase, "image_caption": region.image_caption}
    return known | {name: getattr(description, name) for name in names}


async def _ask_all(items: list[Item], settings: DescribeSettings, cache_path: Path) -> Stages:
    stages: Stages = {name: StageReport(stage.model) for name, stage in settings.stages.items()}
    with AnswerCache(cache_path) as cache, ThreadPoolExecutor(2) as renderers:
        askers = build_stages(settings, ObjectFlow)
        async with ChatClient(settings, samples_of(askers)) as client:
            context = Context(RecordingClient(client, stages), cache, renderers, client.secrets)
            for name, asker in askers.items():
                started = time.monotonic()
                async with asyncio.TaskGroup() as group:
                    for item in items:
                        group.create_task(_ask_one(context, asker, item, stages[name]))
                stages[name].wall_seconds = time.monotonic() - started
                stages[name].repaired = asker.account.repaired
    return stages


async def _ask_one(context: Context, asker: Stage, item: Item, report: StageReport) -> None:
    scene, region, texts = item
    state = RegionState(region, Pictures(scene.load_image))
    try:
        await asker.ask(context, state, texts, region_facts(region))
        report.usable += 1
    except DroppedError as error:
        report.problems[error.problem.reason] += 1
