"""The way of one region through the stages: who is asked what, and what makes it stop.

With it the cheap rule that a merge kept object and location, and the sample requests that find out
whether a server serves anybody.
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeVar

from PIL import Image

from components.data.describe.answers import AnswerSchema, Caption, Checked, Merged, Verdict
from components.data.describe.pictures import NEUTRAL_GREY, Pictures
from components.data.describe.scenes import (
    Contrast,
    Description,
    Outcome,
    PendingScene,
    Region,
    Rejection,
    WordLimits,
)
from components.data.describe.settings import EngineSettings
from components.data.describe.stage import Context, RegionState, Stage
from components.data.llm.gates import DroppedError, Problem, TextRules
from components.data.llm.prompt import Untrusted, one_line
from components.data.llm.settings import StageName
from data_contracts.captions import ASKED_PART
from data_contracts.reasons import DescribeReason
from pixclip.images import ImageError
from pixclip.masks import Box, box_mask, encode_mask

MAX_DETAIL_CHARS, MAX_MASKED_CHARS = 500, 20_000
OnRegion = Callable[[Outcome], None]
Kind = TypeVar("Kind", bound=AnswerSchema)


class RegionFlow(ABC):
    """The way of a region through stages."""

    def __init__(
        self, stages: dict[StageName, Stage], context: Context, settings: EngineSettings
    ) -> None:
        self._stages, self._context, self._settings = stages, context, settings

    @staticmethod
    @abstractmethod
    def text_rules(limits: WordLimits) -> dict[StageName, dict[str, TextRules]]:
        """Bounds of the texts in each stage's answers."""

    @abstractmethod
    async def _through_stages(self, state: RegionState) -> Description | Contrast:
        """Ask the stages of a region.

        Raises:
            DroppedError: the region gets no description.
        """

    async def describe_scene(self, scene: PendingScene, on_region: OnRegion) -> list[Outcome]:
        """The outcome of every row of a scene."""
        pictures = Pictures(scene.load_image)
        phrases = tuple(row["phrase"] for row in scene.rows)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    self._describe_region(RegionState(region, pictures, phrases), on_region)
                )
                for region in scene.regions
            ]
        for rejection in scene.damaged:
            on_region(rejection)
        return [*scene.damaged, *(task.result() for task in tasks)]

    async def _describe_region(self, state: RegionState, on_region: OnRegion) -> Outcome:
        try:
            outcome: Outcome = await self._through_stages(state)
        except DroppedError as error:
            self._stages[state.stage].account.rejected += 1
            outcome = self._rejection(state, state.stage, error.problem)
        except ImageError as error:
            outcome = self._rejection(state, "image", Problem(error.reason, error.detail))
        on_region(outcome)
        return outcome

    def _rejection(self, state: RegionState, stage: str, problem: Problem) -> Rejection:
        # The detail may quote a model or a server.
        detail = self._context.secrets.mask(problem.detail[:MAX_MASKED_CHARS])
        return Rejection(
            region_id=state.region.region_id,
            stage=stage,
            reason=problem.reason,
            detail=one_line(detail)[:MAX_DETAIL_CHARS],
            provenance=state.provenance,
            usage=state.usage,
        )

    async def _ask(
        self,
        stage: StageName,
        state: RegionState,
        texts: Untrusted,
        facts: dict[str, object],
        kind: type[Kind],
    ) -> Kind:
        answer = await self._stages[stage].ask(self._context, state, texts, facts)
        assert isinstance(answer, kind), (stage, answer)
        return answer


class ObjectFlow(RegionFlow):
    """LongGRIT's stages: object, verify, context, merge, check."""

    @staticmethod
    def text_rules(limits: WordLimits) -> dict[StageName, dict[str, TextRules]]:
        """Bounds of the texts in each stage's answers."""
        part = TextRules("caption", *ASKED_PART)
        return {
            "object": {"caption": part},
            "context": {"caption": part},
            "merge": caption_rules(limits),
        }

    async def _through_stages(self, state: RegionState) -> Description:
        region, facts = state.region, region_facts(state.region)
        texts = {"phrase": region.phrase, "image_caption": region.image_caption}
        seen = await self._ask("object", state, texts, facts, Caption)
        texts["object_caption"] = seen.caption
        verdict = await self._ask("verify", state, texts, facts, Verdict)
        require_accepted(verdict)
        context = await self._ask("context", state, texts, facts, Caption)
        texts["context_caption"] = context.caption
        merged = await self._ask("merge", state, texts, facts, Merged)
        _require_kept(lost_in_merge(seen.caption, context.caption, merged.long_caption))
        texts["long_caption"] = merged.long_caption
        _require_checked(await self._ask("check", state, texts, facts, Checked))
        return Description(
            region_id=region.region_id,
            object_caption=seen.caption,
            verdict="accepted",
            verdict_reason=verdict.reason,
            context_caption=context.caption,
            long_caption=merged.long_caption,
            short_caption=merged.short_caption,
            provenance=state.provenance,
            usage=state.usage,
        )


def caption_rules(limits: WordLimits) -> dict[str, TextRules]:
    """Bounds of a long and a short caption."""
    return {
        "long_caption": TextRules("long_caption", limits.min_long, limits.max_long),
        "short_caption": TextRules("short_caption", limits.min_short, limits.max_short),
    }


def region_facts(region: Region) -> dict[str, object]:
    """Our own numbers for the prompts: the box from 0 to 1000 and where its centre is."""
    x1, y1, x2, y2 = region.box_xyxy
    width, height = region.image_width_px, region.image_height_px
    box = [round(1000 * v) for v in (x1 / width, y1 / height, x2 / width, y2 / height)]
    column = ("left", "centre", "right")[min(int(1.5 * (x1 + x2) / width), 2)]
    row = ("top", "centre", "bottom")[min(int(1.5 * (y1 + y2) / height), 2)]
    position = row if row == column else " ".join(w for w in (row, column) if w != "centre")
    return {"box": box, "position": position}


def require_accepted(verdict: Verdict) -> None:
    """Drop a region whose description the verifier refuses.

    Raises:
        DroppedError: with the verifier's reason.
    """
    reasons = {
        DescribeReason.REJECTED_INCONSISTENT: verdict.consistent,
        DescribeReason.REJECTED_INVISIBLE: verdict.only_visible,
        DescribeReason.REJECTED_LANGUAGE: verdict.valid_english,
    }
    _require_all(reasons, verdict.reason)


def _require_checked(checked: Checked) -> None:
    reasons = {
        DescribeReason.MERGE_LOST_OBJECT: checked.keeps_object,
        DescribeReason.MERGE_LOST_LOCATION: checked.keeps_location,
    }
    _require_all(reasons, checked.reason)


def _require_all(reasons: Mapping[DescribeReason, bool], said: str) -> None:
    for reason, is_met in reasons.items():
        if not is_met:
            raise DroppedError(Problem(reason, said))


def _require_kept(problem: Problem | None) -> None:
    if problem:
        raise DroppedError(problem)


# Words that say where something is. Prepositions that every sentence has ("of", "on") say nothing.
_PLACES = """
    above across against among around atop background before behind below beneath beside between
    bottom center central centered centre centred close corner distance edge facing far foreground
    front front-left hanging held inside leftmost left lower lying middle near nearby nearest next
    opposite outside over positioned right rightmost side surrounded top topmost towards under
    underneath upper within
"""
_EVERYDAY = """
    about all also and another any appears area are being black but blue both brown color colored
    colour coloured each features for from gray green grey has have her his image into its large
    light located looks made main object orange other part photograph pink purple red region round
    seen shape shaped short slightly small some that the their there these this visible was were
    white which with yellow
"""
PLACES, EVERYDAY = frozenset(_PLACES.split()), frozenset(_EVERYDAY.split())


def lost_in_merge(object_caption: str, context_caption: str, long_caption: str) -> Problem | None:
    """What the long caption no longer says, or None."""
    merged = stems(long_caption)
    names = stems(object_caption) - EVERYDAY_STEMS
    if names and not names & merged:
        return Problem(DescribeReason.MERGE_LOST_OBJECT, f"none of: {', '.join(sorted(names)[:8])}")
    places = _words(context_caption) & PLACES
    # Said in other words of place is still said; the judge looks at whether it is the same place.
    if places and not _words(long_caption) & PLACES:
        return Problem(
            DescribeReason.MERGE_LOST_LOCATION,
            f"no word of place; there were {', '.join(sorted(places))}",
        )
    return None


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z][a-z'-]+", text.lower()))


def stems(text: str) -> set[str]:
    """The words of a text, longer than two letters, plurals made singular."""
    return {_stem(word) for word in _words(text) if len(word) > 2}


def _stem(word: str) -> str:
    """Singular of a regular plural; enough to compare nouns."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


EVERYDAY_STEMS = frozenset(map(_stem, EVERYDAY))
SIDE_PX = 512
BOX: Box = (128.0, 128.0, 384.0, 384.0)
TEXTS: Untrusted = {
    "phrase": "grey square",
    "image_caption": "A grey picture.",
    "object_caption": "A plain grey square with straight sides.",
    "context_caption": "The square is in the middle of the picture.",
    "long_caption": "A plain grey square with straight sides is in the middle of the picture.",
    "short_caption": "grey square",
    "captions": ["grey square", "blue square"],
}


def samples_of(
    stages: Mapping[StageName, Stage],
) -> dict[StageName, Callable[[], tuple[bytes, bytes]]]:
    """For each stage what makes its sample: for one token, and as a true request."""
    return {
        name: lru_cache(maxsize=1)(lambda a=stage: _bodies(a)) for name, stage in stages.items()
    }


def _bodies(stage: Stage) -> tuple[bytes, bytes]:
    mask = encode_mask(box_mask(BOX, SIDE_PX, SIDE_PX))
    region = Region("sample", "", SIDE_PX, SIDE_PX, BOX, "", "", mask)
    pictures = Pictures(lambda: Image.new("RGB", (SIDE_PX, SIDE_PX), NEUTRAL_GREY))
    return stage.sample_bodies(region, pictures, TEXTS, region_facts(region))
