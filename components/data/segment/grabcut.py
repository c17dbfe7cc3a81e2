"""GrabCut: masks on a CPU, without a model (Rother, Kolmogorov, Blake, SIGGRAPH 2004)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from components.data.segment.segmenter import MaskResult, Prompt, grow_box
from components.data.segment.settings import GrabCutSettings
from pixclip.masks import Box, Mask, clip_box

Pixels = npt.NDArray[np.uint8]
MIN_SIDE_PX = 2  # GrabCut needs pixels on both sides of every border
SEED = 0


class GrabCutSegmenter:
    """Separates each box from what surrounds it by colour."""

    source, images_per_batch = "grabcut", 1

    def __init__(self, settings: GrabCutSettings) -> None:
        import cv2

        cv2.setNumThreads(1)  # the threads of this class are the images
        self.num_threads = settings.num_threads
        self._settings = settings

    def segment(self, prompts: Sequence[Prompt]) -> list[list[MaskResult]]:
        """One cut for each box."""
        results = []
        for prompt in prompts:
            pixels = np.asarray(prompt.image)
            results.append([MaskResult(self._cut(pixels, box)) for box in prompt.boxes])
        return results

    def _cut(self, pixels: Pixels, box: Box) -> Mask:
        """The mask [H, W] of one box of an image [H, W, 3]."""
        import cv2

        height_px, width_px = pixels.shape[:2]
        left, top, right, bottom = _whole_pixels(
            grow_box(box, self._settings.context_share), height_px, width_px
        )
        crop = pixels[top:bottom, left:right]
        scale = min(1.0, self._settings.max_side_px / max(crop.shape[:2]))
        size = tuple(max(MIN_SIDE_PX, round(side * scale)) for side in crop.shape[1::-1])
        small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        inner = tuple(
            (value - start) * length / full
            for value, start, length, full in zip(
                box, (left, top) * 2, size * 2, crop.shape[1::-1] * 2, strict=True
            )
        )
        foreground = cut_inside(small, (inner[0], inner[1], inner[2], inner[3]), self._settings)
        share = cv2.resize(foreground, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        mask = np.zeros((height_px, width_px), dtype=bool)
        mask[top:bottom, left:right] = share > 0.5
        return mask


def cut_inside(pixels: Pixels, box: Box, settings: GrabCutSettings) -> npt.NDArray[np.float32]:
    """1.0 where a crop [H, W, 3] shows the object inside the box, else 0.0."""
    import cv2

    x1, y1, x2, y2 = _whole_pixels(box, *pixels.shape[:2])
    labels = np.full(pixels.shape[:2], cv2.GC_BGD, dtype=np.uint8)
    labels[y1:y2, x1:x2] = cv2.GC_PR_FGD
    if (labels != cv2.GC_BGD).all():  # a box that fills the image leaves no background to learn
        for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            border[:] = cv2.GC_PR_BGD
    if not (labels == cv2.GC_PR_FGD).any():
        return np.zeros(labels.shape, dtype=np.float32)
    cv2.setRNGSeed(SEED)  # of this thread: its clusters start from random colours
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(pixels, labels, None, *models, settings.iterations, cv2.GC_INIT_WITH_MASK)
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)


def _whole_pixels(box: Box, height_px: int, width_px: int) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = clip_box(box, height_px, width_px)
    left, top = min(int(x1), width_px - 1), min(int(y1), height_px - 1)
    right, bottom = int(np.ceil(x2)), int(np.ceil(y2))
    return left, top, max(right, left + 1), max(bottom, top + 1)
