"""Which training images are test images: the same bytes, or hashes within some bits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.data.decontaminate.evaluation import EvaluationImages
from data_contracts.reasons import DecontaminateReason
from pixclip.near_duplicates import Hashes, has_near_duplicate_elsewhere

BLOCK_COMPARISONS = 1 << 22  # in memory at a time


@dataclass(frozen=True)
class Leak:
    """Why a training image is a test image, and which."""

    reason: DecontaminateReason
    detail: str


def find_leaks(
    sha256s: Sequence[str], phashes: Hashes, evaluation: EvaluationImages, max_distance: int
) -> dict[str, Leak]:
    """The leaks by the training images' digests; `phashes` [N] are theirs."""
    found: dict[str, Leak] = {}
    for sha256 in sha256s:
        position = evaluation.by_sha256.get(sha256)
        if position is not None:
            detail = f"the same bytes as {evaluation.places[position]}"
            found[sha256] = Leak(DecontaminateReason.LEAKED_IMAGE, detail)
    near = _near_some(phashes, evaluation.hashes, max_distance)
    for row, (nearest, distance) in _nearest(phashes, near, evaluation.hashes):
        is_mirrored = evaluation.is_mirrored[nearest]
        place = evaluation.places[evaluation.positions[nearest]]
        how = "mirrored " if is_mirrored else ""
        reason = (
            DecontaminateReason.LEAKED_MIRRORED
            if is_mirrored
            else DecontaminateReason.LEAKED_LOOK_ALIKE
        )
        detail = f"{distance} of 64 hash bits from {how}{place}"
        found.setdefault(sha256s[row], Leak(reason, detail))
    return found


def _near_some(hashes: Hashes, others: Hashes, max_distance: int) -> npt.NDArray[np.int64]:
    """The positions of the hashes that are near one of the others."""
    if not len(hashes) or not len(others):
        return np.empty(0, dtype=np.int64)
    distinct = np.unique(others)
    labels = np.repeat(np.arange(2), [len(hashes), len(distinct)])
    is_near = has_near_duplicate_elsewhere(np.concatenate([hashes, distinct]), labels, max_distance)
    return np.flatnonzero(is_near[: len(hashes)])


def _nearest(
    hashes: Hashes, rows: npt.NDArray[np.int64], others: Hashes
) -> list[tuple[int, tuple[int, int]]]:
    """For some hashes the position of the nearest other, the first of equals, and its distance."""
    found: list[tuple[int, tuple[int, int]]] = []
    block = max(1, BLOCK_COMPARISONS // max(1, len(others)))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        apart = np.bitwise_count(hashes[part, None] ^ others)
        nearest = apart.argmin(axis=1)
        distances = apart[np.arange(len(part)), nearest]
        pairs = zip(nearest.tolist(), distances.tolist(), strict=True)
        found += zip(part.tolist(), pairs, strict=True)
    return found
