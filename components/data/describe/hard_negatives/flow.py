"""The way of a region to its wrong captions: change, rules, verify_change.

The verifier is shown the region and all captions in an order that tells nothing, the right one
among them: a model that finds fault with everything would pass every wrong caption, and is found
out.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.data.describe.answers import Change, Changes, JudgedCaption, JudgedCaptions
from components.data.describe.flow import RegionFlow, region_facts
from components.data.describe.hard_negatives.rules import Original, find_flaw, normalised
from components.data.describe.hard_negatives.settings import HardNegativeSettings
from components.data.describe.scenes import Contrast, LeftOut, WordLimits
from components.data.describe.stage import RegionState
from components.data.llm.gates import DroppedError, Problem, TextRules
from components.data.llm.settings import StageName
from data_contracts.reasons import DescribeReason, NegativeReason


class ContrastFlow(RegionFlow):
    """Change and verify_change; the region that is the image itself is asked nothing."""

    @staticmethod
    def text_rules(limits: WordLimits) -> dict[StageName, dict[str, TextRules]]:
        """None: each caption of an answer has its own fate."""
        return {}

    async def _through_stages(self, state: RegionState) -> Contrast:
        settings, region = self._settings, state.region
        assert isinstance(settings, HardNegativeSettings)
        if region.is_whole_image:
            return Contrast(region.region_id, without=NegativeReason.WHOLE_IMAGE)
        facts = region_facts(region)
        texts = {"phrase": region.phrase, "short_caption": region.short_caption}
        told = await self._ask("change", state, texts, facts, Changes)
        original = Original(region.short_caption, region.phrase, state.phrases)
        sifted = _sift(told.changes, original, settings)
        if sifted.sound:
            captions = _in_no_order(
                region.region_id, [region.short_caption, *(one.caption for one in sifted.sound)]
            )
            asked = {**texts, "captions": captions}
            judged = await self._ask("verify_change", state, asked, facts, JudgedCaptions)
            sifted = _judge(sifted, region.short_caption, _by_caption(captions, judged.captions))
        kept, spare = _split(sifted.sound, settings.num_negatives)
        left_out = [*sifted.left_out, *(LeftOut(c.caption, NegativeReason.SPARE) for c in spare)]
        return Contrast(
            region_id=region.region_id,
            negatives=tuple(change.caption for change in kept),
            left_out=tuple(left_out),
            without="" if kept else NegativeReason.NONE_LEFT,
            provenance=state.provenance,
            usage=state.usage,
        )


@dataclass(frozen=True)
class _Sifted:
    sound: tuple[Change, ...]
    left_out: tuple[LeftOut, ...]


def _sift(changes: Sequence[Change], original: Original, settings: HardNegativeSettings) -> _Sifted:
    """The changes that keep the rules."""
    sound: list[Change] = []
    left_out = []
    for change in changes:
        others = [normalised(one.caption) for one in sound]
        flaw = find_flaw(original, change.caption, change.attribute, others)
        if change.attribute not in settings.attributes:
            flaw = Problem(NegativeReason.OTHER_ATTRIBUTE, change.attribute)
        if flaw:
            left_out.append(LeftOut(change.caption, flaw.reason, flaw.detail))
        else:
            sound.append(change)
    return _Sifted(tuple(sound), tuple(left_out))


def _judge(sifted: _Sifted, right: str, judged: Mapping[str, JudgedCaption]) -> _Sifted:
    """The changes that the verifier calls wrong, if it calls the right caption right."""
    sound, left_out = [], list(sifted.left_out)
    for change in sifted.sound:
        verdict = judged[change.caption]
        reason = _refusal(change, verdict)
        if not judged[right].fits:
            reason = NegativeReason.RIGHT_REFUSED
        if reason:
            said = judged[right] if reason == NegativeReason.RIGHT_REFUSED else verdict
            left_out.append(LeftOut(change.caption, reason, said.reason))
        else:
            sound.append(change)
    return _Sifted(tuple(sound), tuple(left_out))


def _refusal(change: Change, verdict: JudgedCaption) -> NegativeReason | None:
    if verdict.fits:
        return NegativeReason.NOT_WRONG
    if not verdict.valid_english:
        return NegativeReason.POOR_ENGLISH
    if not verdict.same_thing and change.attribute != "part":
        return NegativeReason.OTHER_THING
    return None


def _in_no_order(region_id: str, captions: Sequence[str]) -> list[str]:
    """The captions in an order that tells nothing, and is always the same."""
    return sorted(
        captions, key=lambda text: hashlib.sha256(f"{region_id}/{text}".encode()).digest()
    )


def _by_caption(
    captions: Sequence[str], judged: Sequence[JudgedCaption]
) -> dict[str, JudgedCaption]:
    """The verdict on each caption.

    Raises:
        DroppedError: not every caption has one.
    """
    numbers = [one.number for one in judged]
    if sorted(numbers) != list(range(1, len(captions) + 1)):
        detail = f"{len(captions)} captions, verdicts on {', '.join(map(str, numbers)) or 'none'}"
        raise DroppedError(Problem(DescribeReason.INVALID_ANSWER, detail))
    return {captions[one.number - 1]: one for one in judged}


def _split(changes: Sequence[Change], most: int) -> tuple[Sequence[Change], Sequence[Change]]:
    """The changes that are kept, and those beyond as many: one of each attribute comes first."""
    firsts = [
        change
        for place, change in enumerate(changes)
        if change.attribute not in {one.attribute for one in changes[:place]}
    ]
    ordered = [*firsts, *(change for change in changes if change not in firsts)]
    return ordered[:most], ordered[most:]
