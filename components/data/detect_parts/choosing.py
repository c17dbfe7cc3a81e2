"""Which of a detector's boxes are parts of the object: the best box a part that keeps the rules."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from components.data.detect_parts.detector import Detection
from components.data.detect_parts.settings import PartRules
from data_contracts.reasons import DetectReason
from pixclip.masks import Box


@dataclass(frozen=True)
class Choice:
    """A part's box, cut to the object's, and why it is refused, if it is."""

    detection: Detection
    reason: str = ""
    detail: str = ""


def choose_parts(
    detections: Sequence[Detection], object_box: Box, rules: PartRules
) -> list[Choice]:
    """For every query that has boxes, in order: the best that keeps the rules, or else the best.

    Of boxes with equal scores the one further up and left comes first.
    """
    ranked = sorted(detections, key=lambda one: (one.query, -one.score, one.box))
    chosen: dict[int, Choice] = {}
    for detection in ranked:
        before = chosen.get(detection.query)
        if before is None or before.reason:
            choice = judge_box(detection, object_box, rules)
            if before is None or not choice.reason:
                chosen[detection.query] = choice
    return list(chosen.values())


def judge_box(detection: Detection, object_box: Box, rules: PartRules) -> Choice:
    """Cut a box to the object's box, and judge it."""
    box = detection.box
    cut = cut_box(box, object_box)
    inside, share = area_of(cut) / (area_of(box) or 1), area_of(cut) / area_of(object_box)
    short_px = min(cut[2] - cut[0], cut[3] - cut[1])
    # `not >=`, so that NaN fails too.
    if not area_of(cut) >= rules.min_inside_share * area_of(box):
        detail = f"{inside:.1%} of the box in the object's; at least {rules.min_inside_share:.1%}"
        return Choice(detection, DetectReason.OFF_OBJECT, detail)
    if not short_px >= rules.min_side_px:
        detail = f"short side {short_px:.1f} pixels, below {rules.min_side_px:g}"
        return Choice(detection, DetectReason.TINY_BOX, detail)
    if share > rules.max_object_share:
        detail = f"{share:.1%} of the object's box; at most {rules.max_object_share:.1%}"
        return Choice(detection, DetectReason.WHOLE_OBJECT, detail)
    return Choice(replace(detection, box=cut))


def cut_box(box: Box, other: Box) -> Box:
    """The part of a box inside another; without area if they do not meet."""
    x1, y1 = max(box[0], other[0]), max(box[1], other[1])
    return x1, y1, max(x1, min(box[2], other[2])), max(y1, min(box[3], other[3]))


def area_of(box: Box) -> float:
    """The area of a box in square pixels."""
    return (box[2] - box[0]) * (box[3] - box[1])
