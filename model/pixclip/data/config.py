"""What a training batch is made of. Without torch, so that settings can be checked quickly."""

from dataclasses import dataclass

MOST = 10_000_000


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How regions, crops and captions are drawn; the draw depends on these and the epoch alone."""

    batch_size: int = 1024  # regions in a step, over all ranks
    full_image_share: float = 0.1  # of samples become the whole image with its caption (Table 9)
    long_caption_share: float = 0.5  # of samples take the long caption, the others the short one
    regions_per_image: int = 1  # regions of one image that come together in a batch, at most
    needs_crops: bool = True  # I' and M' of eq. 4
    seed: int = 0
    shuffle_shards: int = 16  # shards whose regions are shuffled together

    def __post_init__(self) -> None:
        for name in ("full_image_share", "long_caption_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("batch_size", "regions_per_image", "shuffle_shards"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1, got {getattr(self, name)}")
            if getattr(self, name) > MOST:
                raise ValueError(f"data.{name} must be at most {MOST}, more than any machine holds")
        if self.seed < 0:
            raise ValueError(f"data.seed must not be negative, got {self.seed}")
