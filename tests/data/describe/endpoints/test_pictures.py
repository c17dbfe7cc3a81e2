"""What is drawn for the prompts."""

import base64
import io

import numpy as np
import pytest
from describe_world import HEIGHT_PX, WIDTH_PX
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.data.describe.pictures import LINE_COLOUR, NEUTRAL_GREY, Pictures
from components.data.describe.scenes import Region
from components.data.llm.prompt import PromptHead
from pixclip.masks import box_mask, encode_mask

BOX = (20.0, 10.0, 60.0, 50.0)


def region(box=BOX, height_px=HEIGHT_PX, width_px=WIDTH_PX) -> Region:
    mask = box_mask(box, height_px, width_px)
    return Region("1-00", "a" * 64, width_px, height_px, box, "", "", encode_mask(mask))


def draw(kind: str, a_region: Region | None = None, **head: int) -> np.ndarray:
    """A picture of a green image, as the server would decode it."""
    a_region = a_region or region()
    size = (a_region.image_width_px, a_region.image_height_px)
    pictures = Pictures(lambda: Image.new("RGB", size, (0, 160, 0)))
    url = pictures.urls(a_region, PromptHead(pictures=(kind,), **head))[0]
    data = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def is_near(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel - colour).max() < 40)


def test_a_masked_crop_shows_the_object_on_grey():
    picture = draw("masked_crop")
    middle = picture[picture.shape[0] // 2, picture.shape[1] // 2]
    assert is_near(middle, (0, 160, 0))
    assert is_near(picture[2, 2], NEUTRAL_GREY)
    assert max(picture.shape) == 336  # small crops are made larger


@pytest.mark.parametrize("kind", ["image_with_box", "image_with_outline"])
def test_the_line_runs_along_the_region_and_hides_nothing_else(kind):
    picture = draw(kind)
    assert picture.shape == (HEIGHT_PX, WIDTH_PX, 3)
    assert is_near(picture[30, 40], (0, 160, 0))
    assert is_near(picture[2, 2], (0, 160, 0))
    edge = {"image_with_box": (30, 20), "image_with_outline": (30, 18)}[kind]
    assert is_near(picture[edge], LINE_COLOUR)


def test_a_large_image_is_made_smaller_and_its_box_with_it():
    picture = draw(
        "image_with_box", region((500.0, 200.0, 900.0, 400.0), 500, 1000), max_side_px=200
    )
    assert picture.shape == (100, 200, 3)
    assert is_near(picture[60, 100], LINE_COLOUR)


@given(
    st.tuples(st.integers(0, 94), st.integers(0, 62), st.integers(1, 95), st.integers(1, 63)),
    st.sampled_from(["crop", "masked_crop", "crop_with_outline", "image_with_outline"]),
)
@settings(max_examples=40, deadline=None)
def test_any_box_can_be_drawn_the_same_twice(numbers, kind):
    x, y, width, height = numbers
    box = (float(x), float(y), float(min(x + width, WIDTH_PX)), float(min(y + height, HEIGHT_PX)))
    first, second = draw(kind, region(box)), draw(kind, region(box))
    assert (first == second).all()
    assert max(first.shape) <= 768


def test_the_image_is_decoded_once_for_all_its_pictures():
    opened = []

    def load() -> Image.Image:
        opened.append(1)
        return Image.new("RGB", (WIDTH_PX, HEIGHT_PX))

    pictures = Pictures(load)
    for kinds in (("crop", "masked_crop"), ("image_with_box",)):
        pictures.urls(region(), PromptHead(pictures=kinds))
    assert opened == [1]
