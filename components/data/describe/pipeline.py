"""Regions flow through stages, each at its own pace; no stage waits for another to end.

    object -> verify -> context -> merge -> check       (`ObjectFlow`)
    part -> verify_part, whole -> verify_whole          (`PartFlow`)
    change -> verify_change                             (`ContrastFlow`)

A region that fails anywhere is dropped alone. Scenes are read while there is room for their regions
and images; what is done is handed over scene by scene, in any order.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from components.core.errors import first_cause
from components.data.describe.flow import OnRegion, RegionFlow, samples_of
from components.data.describe.outcomes import StageAccount
from components.data.describe.scenes import Outcome, PendingScene
from components.data.describe.settings import EngineSettings
from components.data.describe.stage import Context, Stage
from components.data.llm.cache import AnswerCache, AnswerFiles
from components.data.llm.client import ChatClient
from components.data.llm.gates import identify_language
from components.data.llm.prompt import load_prompt
from components.data.llm.settings import StageName

Deliver = Callable[[int, PendingScene, Sequence[Outcome]], None]
# Enough regions in flight that every endpoint has work while others are being drawn.
REGIONS_PER_PLACE = 3


def describe_scenes(
    scenes: Iterable[PendingScene],
    settings: EngineSettings,
    flow: type[RegionFlow],
    kept: AnswerFiles,
    deliver: Deliver,
    on_region: OnRegion,
) -> dict[StageName, StageAccount]:
    """Describe scenes by the models behind the endpoints; `deliver` gets each scene's outcomes.

    Raises:
        EndpointError: the endpoints of a stage serve nobody; answers so far are kept.
    """
    stages = build_stages(settings, flow)
    identify_language("Load the model now, not while a server waits.")
    try:
        asyncio.run(_run(scenes, settings, flow, kept, stages, deliver, on_region))
    except BaseExceptionGroup as group:
        raise first_cause(group) from group
    return {name: stage.account for name, stage in stages.items()}


def build_stages(settings: EngineSettings, flow: type[RegionFlow]) -> dict[StageName, Stage]:
    """Every stage by its name.

    Raises:
        InputError: a prompt file is missing or broken.
    """
    rules = flow.text_rules(settings.word_limits)
    common = settings.prompt_facts
    return {
        name: Stage(
            name,
            stage,
            load_prompt(stage.prompt, common),
            rules.get(name, {}),
            {subset: load_prompt(prompt, common) for subset, prompt in stage.prompts.items()},
        )
        for name, stage in settings.stages.items()
    }


async def _run(
    scenes: Iterable[PendingScene],
    settings: EngineSettings,
    flow: type[RegionFlow],
    kept: AnswerFiles,
    stages: dict[StageName, Stage],
    deliver: Deliver,
    on_region: OnRegion,
) -> None:
    with (
        AnswerCache(kept.path) as cache,
        ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="render") as renderers,
    ):
        cache.adopt(kept.older)
        async with ChatClient(settings, samples_of(stages)) as client, asyncio.TaskGroup() as group:
            way = flow(stages, Context(client, cache, renderers, client.secrets), settings)
            room = _Room(client.num_places * REGIONS_PER_PLACE, settings.max_image_memory_mb << 20)

            async def describe(index: int, scene: PendingScene) -> None:
                deliver(index, scene, await way.describe_scene(scene, on_region))
                room.leave(scene)

            for index, scene in enumerate(scenes):
                await room.enter(scene)
                group.create_task(describe(index, scene))


class _Room:
    """Bounds the regions and the bytes of decoded images in flight; one scene always fits."""

    def __init__(self, max_regions: int, max_bytes: int) -> None:
        self._max_regions, self._max_bytes = max_regions, max_bytes
        self._num_regions = self._num_bytes = 0
        self._left = asyncio.Event()

    async def enter(self, scene: PendingScene) -> None:
        """Wait until there is room for a scene."""
        while self._num_regions and not self._fits(scene):
            self._left.clear()
            await self._left.wait()
        self._num_regions += len(scene.rows)
        self._num_bytes += scene.num_image_bytes

    def leave(self, scene: PendingScene) -> None:
        """Make room again."""
        self._num_regions -= len(scene.rows)
        self._num_bytes -= scene.num_image_bytes
        self._left.set()

    def _fits(self, scene: PendingScene) -> bool:
        return (
            self._num_regions < self._max_regions
            and self._num_bytes + scene.num_image_bytes <= self._max_bytes
        )
