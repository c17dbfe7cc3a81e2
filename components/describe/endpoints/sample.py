"""A request about nothing in particular, to find out whether a server serves anybody."""

from collections.abc import Callable, Mapping
from functools import lru_cache

from PIL import Image

from components.describe.endpoints.asker import StageAsker
from components.describe.endpoints.flow import region_facts
from components.describe.endpoints.pictures import NEUTRAL_GREY, Pictures
from components.describe.settings import StageName
from components.describe.types import Region
from pixclip.masks import Box, box_mask, encode_mask

SIDE_PX = 512
BOX: Box = (128.0, 128.0, 384.0, 384.0)
TEXTS = {
    "phrase": "grey square",
    "image_caption": "A grey picture.",
    "object_caption": "A plain grey square with straight sides.",
    "context_caption": "The square is in the middle of the picture.",
    "long_caption": "A plain grey square with straight sides is in the middle of the picture.",
}


def samples_of(
    askers: Mapping[StageName, StageAsker],
) -> dict[StageName, Callable[[], tuple[bytes, bytes]]]:
    """For each stage what makes its sample: for one token, and as a true request."""
    return {
        name: lru_cache(maxsize=1)(lambda a=asker: _bodies(a)) for name, asker in askers.items()
    }


def _bodies(asker: StageAsker) -> tuple[bytes, bytes]:
    mask = encode_mask(box_mask(BOX, SIDE_PX, SIDE_PX))
    region = Region("sample", "", SIDE_PX, SIDE_PX, BOX, "", "", mask)
    pictures = Pictures(lambda: Image.new("RGB", (SIDE_PX, SIDE_PX), NEUTRAL_GREY))
    return asker.sample_bodies(region, pictures, TEXTS, region_facts(region))
