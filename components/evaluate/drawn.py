"""Draw the pictures of the page in one pass over the images, into the folder `pictures/`."""

import base64
import io
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor

from pixclip.data.samples import Sample
from pixclip.evaluation.benchmark import Benchmark
from pixclip.evaluation.metrics import Floats
from pixclip.evaluation.pictures import cls_attention, heat, outlined, patch_similarity
from pixclip.masks import Mask, decode_mask
from pixclip.model import PixClip

REGION_SIDE_PX, MAP_SIDE_PX = 224, 320
JPEG_QUALITY = 82
FOLDER = "pictures"


@dataclass(frozen=True)
class Picture:
    """A picture as a data URL, and the file beside the page that holds it too."""

    name: str
    data_url: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Maps:
    """What a model looks at for a region, and where it sees the region's text."""

    region: int
    outlined: Picture
    attention_whole: Picture
    attention_region: Picture
    similarity: Picture
    similarity_range: tuple[float, float]


@dataclass
class Drawings:
    """Pictures by region."""

    regions: dict[int, Picture] = field(default_factory=dict)
    maps: dict[int, Maps] = field(default_factory=dict)


@dataclass(frozen=True)
class Artist:
    """Draws for one model into one folder; `texts_TD` embeds the benchmark's texts."""

    folder: Path
    model: PixClip
    benchmark: Benchmark
    texts_TD: Tensor

    def draw(self, samples: Iterable[Sample], regions: Set[int], with_maps: Set[int]) -> Drawings:
        """Draw regions; `samples` come in the order in which the benchmark was built."""
        (self.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        drawings, first = Drawings(), 0
        for sample in samples:
            wanted = range(first, first + len(sample.regions))
            first += len(sample.regions)
            if (regions | with_maps).isdisjoint(wanted):
                continue
            image = sample.image()
            for place, region in zip(wanted, sample.regions, strict=True):
                mask = decode_mask(region.mask)
                if place in regions:
                    drawn = outlined(image, mask, REGION_SIDE_PX)
                    drawings.regions[place] = self._save(f"region-{place:06d}", drawn)
                if place in with_maps:
                    drawings.maps[place] = self._maps(place, image, mask)
        return drawings

    def _maps(self, place: int, image: Image.Image, mask: Mask) -> Maps:
        whole, region = (cls_attention(self.model, image, some) for some in (None, mask))
        text_D = self.texts_TD[int(self.benchmark.long_R[place])]
        similarity = patch_similarity(self.model, image, text_D)
        low, high = float(similarity.min()), float(similarity.max())
        brightest = max(whole.max(), region.max())  # one scale for both, or they do not compare
        return Maps(
            place,
            self._save(f"map-{place:06d}-region", outlined(image, mask, MAP_SIDE_PX)),
            self._heat(f"map-{place:06d}-attention-whole", image, whole, 0, brightest),
            self._heat(f"map-{place:06d}-attention-region", image, region, 0, brightest),
            self._heat(f"map-{place:06d}-similarity", image, similarity, low, high),
            (low, high),
        )

    def _heat(
        self, name: str, image: Image.Image, values: Floats, low: float, high: float
    ) -> Picture:
        return self._save(name, heat(image, values, low, high, MAP_SIDE_PX))

    def _save(self, name: str, image: Image.Image) -> Picture:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
        path = f"{FOLDER}/{name}.jpg"
        (self.folder / path).write_bytes(buffer.getvalue())
        text = base64.b64encode(buffer.getvalue()).decode()
        return Picture(path, f"data:image/jpeg;base64,{text}", image.width, image.height)
