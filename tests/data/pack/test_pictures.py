import base64
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from components.data.pack.examples import NUMBER_RADIUS, Picture, outline, outlines_of, shrink
from pixclip.masks import encode_mask, mask_iou


def rasterise(path, height, width):
    """The mask that an SVG path of straight lines fills by the even-odd rule."""
    filled = np.zeros((height, width), dtype=np.uint8)
    for part in path.split("Z")[:-1]:
        points = np.array([[float(v) - 0.5 for v in xy.split(",")] for xy in part[1:].split()])
        layer = np.zeros_like(filled)
        cv2.fillPoly(layer, [points.round().astype(np.int32)], 1)
        filled ^= layer
    return filled.astype(bool)


def ellipse(height, width, box):
    layer = np.zeros((height, width), dtype=np.uint8)
    x1, y1, x2, y2 = box
    cv2.ellipse(
        layer, ((x1 + x2) // 2, (y1 + y2) // 2), ((x2 - x1) // 2, (y2 - y1) // 2), 0, 0, 360, 1, -1
    )
    return layer.astype(bool)


@pytest.mark.parametrize("box", [(10, 10, 60, 50), (0, 0, 99, 79), (70, 5, 96, 70)])
def test_an_outline_follows_its_mask(box):
    mask = ellipse(80, 100, box)
    shape = outline(encode_mask(mask).as_coco(), Picture("", 100, 80, 1.0))
    assert mask_iou(rasterise(shape.path, 80, 100), mask) > 0.95
    assert mask[int(shape.y), int(shape.x)]


def test_an_outline_is_in_the_pixels_of_the_small_picture():
    mask = ellipse(160, 200, (20, 20, 120, 100))
    shape = outline(encode_mask(mask).as_coco(), Picture("", 100, 80, 0.5))
    small = ellipse(80, 100, (10, 10, 60, 50))
    assert mask_iou(rasterise(shape.path, 80, 100), small) > 0.9


def test_a_hole_stays_open_and_the_number_stands_on_the_mask():
    mask = ellipse(80, 100, (10, 10, 90, 70)) & ~ellipse(80, 100, (30, 30, 60, 50))
    shape = outline(encode_mask(mask).as_coco(), Picture("", 100, 80, 1.0))
    assert shape.path.count("M") == 2
    assert mask[int(shape.y), int(shape.x)]


def test_a_mask_thinner_than_a_pixel_of_the_picture_still_has_an_outline():
    mask = np.zeros((400, 400), dtype=bool)
    mask[200, 100] = True
    assert outline(encode_mask(mask).as_coco(), Picture("", 40, 40, 0.1)).path


@pytest.mark.parametrize(("rows", "is_above"), [(slice(40, 44), True), (slice(1, 4), False)])
def test_the_number_of_a_thin_mask_stands_beside_it_and_inside_the_picture(rows, is_above):
    mask = np.zeros((80, 100), dtype=bool)
    mask[rows, 20:60] = True
    shape = outline(encode_mask(mask).as_coco(), Picture("", 100, 80, 1.0))
    assert (shape.y < rows.start) == is_above
    assert (shape.y >= rows.stop) != is_above
    assert 20 <= shape.x < 60


def test_shrinking_keeps_the_shape_and_never_enlarges():
    buffer = io.BytesIO()
    Image.new("RGB", (600, 300), (9, 9, 9)).save(buffer, "JPEG")
    picture = shrink(buffer.getvalue(), 200)
    assert (picture.width_px, picture.height_px, picture.scale) == (200, 100, pytest.approx(1 / 3))
    encoded = base64.b64decode(picture.data_url.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(encoded)).size == (200, 100)
    assert shrink(buffer.getvalue(), 900).width_px == 600


def test_numbers_of_close_parts_stand_apart_and_inside_the_picture():
    boxes = [(0, 0, 640, 480), (2, 2, 40, 40), (30, 5, 70, 45), (20, 30, 60, 70)]
    full = encode_mask(np.ones((480, 640), dtype=bool)).as_coco()
    regions = [
        {"box_xyxy": box, "mask": full, "box_source": "points" if number else "image"}
        for number, box in enumerate(boxes)
    ]
    shapes = outlines_of(regions, Picture("", 640, 480, 1.0))
    places = [(shape.x, shape.y) for shape in shapes]
    assert [shape.box for shape in shapes] == [
        None,
        *((x, y, a - x, b - y) for x, y, a, b in boxes[1:]),
    ]
    assert all(value >= NUMBER_RADIUS for place in places for value in place)
    gaps = [np.hypot(a[0] - b[0], a[1] - b[1]) for n, a in enumerate(places) for b in places[:n]]
    assert min(gaps) > NUMBER_RADIUS
