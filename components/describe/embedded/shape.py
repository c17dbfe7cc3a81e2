"""Measure the shape of a mask: size, elongation, direction, how solid its outline is."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixclip.masks import Mask

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """The shape of a mask."""

    box_fill: float  # share of its bounding box
    solidity: float  # share of its convex hull
    elongation: float  # long axis over short axis of the ellipse with the same second moments
    angle_deg: float  # of the long axis against the horizontal, in (-90, 90], upwards to the right


def measure_shape(crop: Mask) -> Shape:
    """The shape of a mask [H, W] that is cropped to its bounding box and not empty."""
    area = int(np.count_nonzero(crop))
    variance_x, variance_y, covariance = _second_moments(crop, area)
    spread = np.hypot(variance_x - variance_y, 2 * covariance)
    long, short = (variance_x + variance_y + spread) / 2, (variance_x + variance_y - spread) / 2
    # Image rows count downwards: the sign turns the angle upwards.
    angle = -0.5 * np.degrees(np.arctan2(2 * covariance, variance_x - variance_y))
    return Shape(
        box_fill=area / crop.size,
        solidity=min(area / _hull_area(crop), 1.0),
        elongation=float(np.sqrt(long / short)),
        angle_deg=float(angle),
    )


def _second_moments(crop: Mask, area: int) -> tuple[float, float, float]:
    """Variances of x and y and their covariance over the pixels of a mask."""
    height, width = crop.shape
    xs, ys = np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2
    columns, rows = crop.sum(axis=0), crop.sum(axis=1)
    mean_x, mean_y = float(columns @ xs) / area, float(rows @ ys) / area
    mixed = float((crop.astype(np.float32) @ xs.astype(np.float32)) @ ys) / area
    # A pixel is a square and not a point: 1/12 is its own variance.
    variance_x = float(columns @ xs**2) / area - mean_x**2 + 1 / 12
    variance_y = float(rows @ ys**2) / area - mean_y**2 + 1 / 12
    return variance_x, variance_y, mixed - mean_x * mean_y


def _hull_area(crop: Mask) -> float:
    """The area of the convex hull of a mask's pixels, taken as squares."""
    import cv2  # slow to import

    rows = np.flatnonzero(crop.any(axis=1))
    left = crop[rows].argmax(axis=1)
    right = crop.shape[1] - crop[rows, ::-1].argmax(axis=1)
    corners = [(x, y) for x in (left, right) for y in (rows, rows + 1)]
    points = np.concatenate([np.stack(corner, axis=1) for corner in corners])
    return float(cv2.contourArea(cv2.convexHull(points.astype(np.int32))))
