"""What a region becomes in an epoch: drawn from seed, epoch and region, never from a worker."""

import hashlib
import struct
from dataclasses import dataclass

from pixclip.data.config import DataConfig
from pixclip.data.samples import Region, Sample


@dataclass(frozen=True)
class Draw:
    """The text of a sample, and whether it is the whole image instead of the region."""

    text: str
    is_full_image: bool


def draw(config: DataConfig, epoch: int, sample: Sample, region: Region) -> Draw:
    """The whole image with its caption for a share of the samples, else a long or short caption.

    An image that came without a caption is never drawn whole: there is no text to match it with.
    """
    name = f"{config.seed}/{epoch}/{region.region_id}".encode()
    first, second = struct.unpack("<QQ", hashlib.blake2b(name, digest_size=16).digest())
    if first / 2**64 < config.full_image_share and sample.caption.strip():
        return Draw(sample.caption, is_full_image=True)
    is_long = second / 2**64 < config.long_caption_share
    return Draw(region.long_caption if is_long else region.short_caption, is_full_image=False)
