"""What a training batch is made of. Without torch, so that settings can be checked quickly."""

from typing import Annotated, Literal

from pydantic import Field

from pixclip.config import Config

MOST = 10_000_000  # more than any machine holds

Number = Annotated[int, Field(ge=1, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]


class ReadConfig(Config):
    """What every loader is told; the order of an epoch depends on the seed and the epoch alone."""

    batch_size: Number  # of samples in a step, over all ranks
    seed: int = Field(0, ge=0)
    shuffle_shards: Number = 16  # shards whose samples are shuffled together
    # Pixels that a JPEG keeps along each side of the image and of its crops; it can be decoded at
    # 1/2, 1/4 or 1/8 of its size. whole: all, as evaluation does. spare: twice the model's; tensors
    # differ from whole ones by 51 dB or more on average. tight: at least the model's; by 40 dB.
    decoding: Literal["whole", "spare", "tight"] = "spare"


class DataConfig(ReadConfig):
    """How regions, crops and captions are drawn; the draw depends on these and the epoch alone."""

    batch_size: Number = 1024  # regions in a step, over all ranks
    full_image_share: Share = 0.1  # of samples become the whole image with its caption (Table 9)
    long_caption_share: Share = 0.5  # of samples take the long caption, the others the short one
    regions_per_image: Number = 1  # regions of one image that come together in a batch, at most
    # Regions of one image in an epoch, at most; which ones changes with the epoch. 0: all. So that
    # images with many parts, beside others with few regions, do not fill the batches.
    regions_per_epoch: int = Field(0, ge=0, le=MOST)
    needs_crops: bool = True  # I' and M' of eq. 4
    # Wrong captions of a region that takes its short caption, at most; 0: none is read.
    hard_negatives: int = Field(0, ge=0, le=MOST)


class PartDataConfig(ReadConfig):
    """How images and their parts are drawn (PA-CLIP); depends on these and the epoch alone."""

    batch_size: Number = 512  # images in a step, over all ranks
    # Parts of an image in a batch, at most; which ones changes with the epoch. FG-CLIP takes 4. 0:
    # none.
    parts_per_image: int = Field(4, ge=0, le=MOST)
    long_part_share: Share = 0.5  # of parts take the long caption, the others the short one
    # Wrong captions of a part that takes its short caption, at most; 0: none is read.
    hard_negatives: int = Field(0, ge=0, le=MOST)
