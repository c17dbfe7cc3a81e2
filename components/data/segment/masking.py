"""Give the regions of an image their masks; an image that fails loses its own regions only.

The mask that a row brought along is untrusted until checked.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.core.errors import PipelineError
from components.core.shards import read_image_bytes
from components.core.tables import Row, without
from components.data.segment.segmenter import MaskResult, Prompt, Segmenter, judge_mask
from components.data.segment.settings import SegmentSettings
from data_contracts.reasons import SegmentReason
from pixclip.images import ImageError, open_image
from pixclip.masks import Mask, Rle, decode_mask, encode_mask, mask_iou

log = logging.getLogger(__name__)

RECORD = "record"


@dataclass(frozen=True)
class Outcome:
    """A candidate row with its mask, or with the reason why it has none."""

    candidate: Row
    region: Row | None
    reason: str = ""
    detail: str = ""
    iou: float | None = None  # of the made mask with the record's own, where there are both


class Masker:
    """Masks for the rows of images, from one segmenter."""

    def __init__(self, images: Path, segmenter: Segmenter | None, settings: SegmentSettings):
        self._images, self._segmenter, self._settings = images, segmenter, settings

    def mask_images(self, batch: Sequence[Sequence[Row]]) -> list[Outcome]:
        """The outcomes of the rows of some images, in order; each item is one image's rows."""
        needy = [[row for row in rows if self._needs_segmenter(row)] for rows in batch]
        made = self._segment([rows for rows in needy if rows])
        return [
            made[row["region_id"]] if self._needs_segmenter(row) else self._take_from_record(row)
            for rows in batch
            for row in rows
        ]

    def _needs_segmenter(self, row: Row) -> bool:
        if self._segmenter is None:
            return False
        if self._settings.source != RECORD:
            return True
        if has_unusable_mask(row):
            return self._settings.replace_unusable_masks
        return row["mask_counts"] is None

    def _take_from_record(self, row: Row) -> Outcome:
        try:
            return self._judge(row, MaskResult(record_mask(row)), RECORD)
        except MaskError as error:
            return Outcome(row, None, error.reason, error.detail)

    def _segment(self, batch: Sequence[Sequence[Row]]) -> dict[str, Outcome]:
        """Region -> outcome for the rows of images whose masks must be made."""
        outcomes: dict[str, Outcome] = {}
        prompts: list[tuple[Sequence[Row], Prompt]] = []
        for rows in batch:
            try:
                prompts.append((rows, self._prompt(rows)))
            except ImageError as error:
                failed = [Outcome(row, None, error.reason, error.detail) for row in rows]
                outcomes.update({row["region_id"]: o for row, o in zip(rows, failed, strict=True)})
        for rows, found in zip(
            [rows for rows, _ in prompts],
            self._results([prompt for _, prompt in prompts]),
            strict=True,
        ):
            outcomes.update(self._judge_all(rows, found))
        return outcomes

    def _prompt(self, rows: Sequence[Row]) -> Prompt:
        first = rows[0]
        sha256 = first["image_sha256"]
        image = open_image(read_image_bytes(self._images, first["image_shard"], sha256))
        expected = (first["image_width_px"], first["image_height_px"])
        if image.size != expected:
            raise ImageError(
                SegmentReason.IMAGE_SIZE_MISMATCH, f"image {image.size}, its rows {expected}"
            )
        return Prompt(image, tuple((b[0], b[1], b[2], b[3]) for b in (r["box_xyxy"] for r in rows)))

    def _results(self, prompts: list[Prompt]) -> list[list[MaskResult] | str]:
        """Each prompt's masks, or the error that the segmenter raised for it."""
        if not prompts:
            return []
        assert self._segmenter is not None
        try:
            found = self._segmenter.segment(prompts)
            _require_fit(prompts, found)
            return list(found)
        except PipelineError:
            raise
        except Exception as error:  # models and OpenCV raise anything
            message = f"{type(error).__name__}: {error}"
            log.warning("segmenter failed on %d image(s): %s", len(prompts), message)
        if len(prompts) == 1:
            return [message]
        return [result for prompt in prompts for result in self._results([prompt])]

    def _judge_all(self, rows: Sequence[Row], found: list[MaskResult] | str) -> dict[str, Outcome]:
        if isinstance(found, str):
            return {
                row["region_id"]: Outcome(row, None, SegmentReason.SEGMENTER_FAILED, found[:500])
                for row in rows
            }
        assert self._segmenter is not None
        return {
            row["region_id"]: self._judge(row, result, self._segmenter.source)
            for row, result in zip(rows, found, strict=True)
        }

    def _judge(self, row: Row, result: MaskResult, source: str) -> Outcome:
        x1, y1, x2, y2 = row["box_xyxy"]
        verdict = judge_mask(result.mask, (x1, y1, x2, y2), self._settings.rules)
        if verdict.reason:
            return Outcome(row, None, verdict.reason, f"{source}: {verdict.detail}")
        rle = encode_mask(verdict.mask)
        region = {
            **without(row, ("mask_counts", "mask_size")),
            "mask_counts": rle.counts,
            "mask_size": [rle.height_px, rle.width_px],
            "mask_area_px": int(np.count_nonzero(verdict.mask)),
            "mask_source": source,
            "mask_score": result.score,
        }
        if source == RECORD or row["mask_counts"] is None:
            return Outcome(row, region)
        region["mask_fault"] = None  # of a mask that was not asked for
        try:
            return Outcome(row, region, iou=mask_iou(verdict.mask, record_mask(row)))
        except MaskError:
            return Outcome(row, region)


def _require_fit(prompts: Sequence[Prompt], found: Sequence[Sequence[MaskResult]]) -> None:
    """Refuse an answer whose masks cannot be those of the boxes that were asked for.

    Raises:
        ValueError: a wrong number of masks, or masks of another size.
    """
    wanted = [[(p.image.height, p.image.width)] * len(p.boxes) for p in prompts]
    given = [[result.mask.shape for result in results] for results in found]
    if given != wanted:
        raise ValueError(f"the segmenter gave masks {given} where {wanted} were asked for")


class MaskError(ValueError):
    """A row's own mask cannot be used; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def has_unusable_mask(row: Row) -> bool:
    """Whether the source brought a mask of which nothing could be read."""
    return row["mask_counts"] is None and row["mask_fault"] is not None


def record_mask(row: Row) -> Mask:
    """The row's own mask [H, W].

    Raises:
        MaskError: `no_mask`, `own_mask_unusable` (the importing step could not read it),
            `mask_size_mismatch` (it belongs to an image of another size) or `mask_damaged`.
    """
    if has_unusable_mask(row):
        detail = f"{row['mask_fault']}; segment.replace_unusable_masks lets the fallback make one"
        raise MaskError(SegmentReason.OWN_MASK_UNUSABLE, detail)
    if row["mask_counts"] is None:
        raise MaskError(
            SegmentReason.NO_MASK, "the record brought no mask and there is no fallback source"
        )
    height_px, width_px = row["image_height_px"], row["image_width_px"]
    if row["mask_size"] != [height_px, width_px]:
        detail = f"mask {row['mask_size']}, image {[height_px, width_px]}"
        raise MaskError(SegmentReason.MASK_SIZE_MISMATCH, detail)
    try:
        return decode_mask(Rle(height_px, width_px, row["mask_counts"]))
    except ValueError as error:
        raise MaskError(SegmentReason.MASK_DAMAGED, str(error)) from None
