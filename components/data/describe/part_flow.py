"""The way of a part, and of a whole image, through its stages (PA-CLIP, section 3.2)."""

from components.data.describe.answers import Merged, PartCaption, Verdict
from components.data.describe.flow import (
    RegionFlow,
    caption_rules,
    region_facts,
    require_accepted,
    stems,
)
from components.data.describe.scenes import Description, WordLimits
from components.data.describe.stage import RegionState
from components.data.llm.gates import DroppedError, Problem, TextRules
from components.data.llm.settings import StageName
from data_contracts.captions import PART
from data_contracts.reasons import DescribeReason

SIDES = frozenset({"left", "right"})  # which of two parts it is need not be said twice


class PartFlow(RegionFlow):
    """Part and verify_part; for the region that is the image itself, whole and verify_whole."""

    @staticmethod
    def text_rules(limits: WordLimits) -> dict[StageName, dict[str, TextRules]]:
        """Bounds of the texts in each stage's answers."""
        captions = caption_rules(limits)
        caption = TextRules("caption", limits.min_long, limits.max_long)
        location = TextRules("location", *PART)
        short = captions["short_caption"]
        return {
            "part": {"caption": caption, "location": location, "short_caption": short},
            "whole": captions,
        }

    async def _through_stages(self, state: RegionState) -> Description:
        if state.region.is_whole_image:
            return await self._whole(state)
        region, facts = state.region, region_facts(state.region)
        texts = {"phrase": region.phrase, "image_caption": region.image_caption}
        seen = await self._ask("part", state, texts, facts, PartCaption)
        _require_named(region.phrase, seen.caption)
        texts |= {"long_caption": seen.caption, "short_caption": seen.short_caption}
        verdict = await self._ask("verify_part", state, texts, facts, Verdict)
        require_accepted(verdict)
        return Description(
            region_id=region.region_id,
            object_caption=seen.caption,
            verdict="accepted",
            verdict_reason=verdict.reason,
            context_caption=seen.location,
            long_caption=seen.caption,
            short_caption=seen.short_caption,
            provenance=state.provenance,
            usage=state.usage,
        )

    async def _whole(self, state: RegionState) -> Description:
        region, facts = state.region, region_facts(state.region)
        texts = {"phrase": region.phrase, "image_caption": region.image_caption}
        seen = await self._ask("whole", state, texts, facts, Merged)
        texts |= {"long_caption": seen.long_caption, "short_caption": seen.short_caption}
        verdict = await self._ask("verify_whole", state, texts, facts, Verdict)
        require_accepted(verdict)
        return Description(
            region_id=region.region_id,
            object_caption=seen.long_caption,
            verdict="accepted",
            verdict_reason=verdict.reason,
            context_caption=WHOLE_CONTEXT,
            long_caption=seen.long_caption,
            short_caption=seen.short_caption,
            provenance=state.provenance,
            usage=state.usage,
        )


WHOLE_CONTEXT = "This is the whole image."


def _require_named(phrase: str, caption: str) -> None:
    """Drop a caption that does not speak of its part.

    Raises:
        DroppedError: it has no word of the part's name.
    """
    names = stems(phrase) - SIDES
    if names and not names & stems(caption):
        raise DroppedError(
            Problem(DescribeReason.PART_NOT_NAMED, f"none of: {', '.join(sorted(names))}")
        )
