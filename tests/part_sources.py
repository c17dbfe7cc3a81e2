"""Small part-annotated data sets, written exactly in the layouts that are published."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

CUB_PARTS = (
    "back",
    "beak",
    "belly",
    "breast",
    "crown",
    "forehead",
    "left eye",
    "left leg",
    "left wing",
    "nape",
    "right eye",
    "right leg",
    "right wing",
    "tail",
    "throat",
)
NABIRDS_PARTS = (
    "bill",
    "crown",
    "nape",
    "left eye",
    "right eye",
    "belly",
    "breast",
    "back",
    "tail",
    "left wing",
    "right wing",
)
# Where parts lie in the box of a bird that looks to the left, as shares of its sides.
PLACES = {
    "beak": (0.05, 0.25),
    "bill": (0.05, 0.25),
    "forehead": (0.12, 0.15),
    "crown": (0.2, 0.08),
    "left eye": (0.15, 0.2),
    "nape": (0.3, 0.2),
    "throat": (0.15, 0.35),
    "breast": (0.25, 0.55),
    "belly": (0.4, 0.75),
    "back": (0.55, 0.35),
    "left wing": (0.55, 0.55),
    "left leg": (0.45, 0.95),
    "tail": (0.95, 0.7),
}


@dataclass(frozen=True)
class Bird:
    """A photograph of a bird; points in pixels, parts that are missing are not visible."""

    is_test: bool = False
    species: str = "Black_footed_Albatross"
    width: int = 320
    height: int = 240
    box: tuple[float, float, float, float] = (60.0, 40.0, 200.0, 160.0)  # x, y, width, height
    points: dict[str, tuple[float, float]] = field(default_factory=dict)
    seed: int = 0

    @property
    def seen(self) -> dict[str, tuple[float, float]]:
        """The visible parts and their points."""
        x, y, width, height = self.box
        usual = {name: (x + a * width, y + b * height) for name, (a, b) in PLACES.items()}
        return self.points or usual


def photograph(seed: int, width: int, height: int) -> Image.Image:
    """A smooth picture that differs from seed to seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_cub(folder: Path, birds: Sequence[Bird], *, segmentations: bool = True) -> Path:
    """`folder/CUB_200_2011`, `folder/attributes.txt` and `folder/segmentations`; gives the first.

    The segmentation of a bird is the ellipse in its box.
    """
    root = folder / "CUB_200_2011"
    species = sorted({bird.species for bird in birds})
    names = []
    for number, bird in enumerate(birds, start=1):
        label = species.index(bird.species) + 1
        names.append(f"{label:03d}.{bird.species}/{bird.species}_{number:04d}_{796000 + number}")
        put(root / "images" / f"{names[-1]}.jpg", picture_of(bird, number))
        if segmentations:
            target = folder / "segmentations" / f"{names[-1]}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ellipse(bird)).save(target)
    _write_birds(root, birds, [str(n) for n in range(1, len(birds) + 1)], CUB_PARTS, names)
    classes = [f"{n} {n:03d}.{name}" for n, name in enumerate(species, start=1)]
    lines(root / "classes.txt", classes)
    lines(folder / "attributes.txt", ["1 has_bill_shape::curved_(up_or_down)"])
    return root


def write_nabirds(folder: Path, birds: Sequence[Bird]) -> Path:
    """`folder/nabirds`."""
    root = folder / "nabirds"
    species = sorted({bird.species for bird in birds})
    keys = [f"{number:08x}-dead-beef-a1b2-{number:012x}" for number in range(1, len(birds) + 1)]
    names = []
    for number, (bird, key) in enumerate(zip(birds, keys, strict=True), start=1):
        names.append(f"{817 + species.index(bird.species):04d}/{key.replace('-', '')}")
        put(root / "images" / f"{names[-1]}.jpg", picture_of(bird, number))
    _write_birds(root, birds, keys, NABIRDS_PARTS, names)
    both = zip(keys, birds, strict=True)
    lines(root / "sizes.txt", [f"{key} {bird.width} {bird.height}" for key, bird in both])
    lines(root / "classes.txt", [f"{n} {s.replace('_', ' ')}" for n, s in enumerate(species, 1)])
    lines(root / "hierarchy.txt", [f"{n} 0" for n, _ in enumerate(species, 1)])
    return root


def _write_birds(
    root: Path,
    birds: Sequence[Bird],
    keys: Sequence[str],
    parts: Sequence[str],
    names: Sequence[str],
) -> None:
    both = list(zip(keys, birds, strict=True))
    species = sorted({bird.species for bird in birds})
    lines(root / "images.txt", [f"{k} {n}.jpg" for k, n in zip(keys, names, strict=True)])
    lines(root / "image_class_labels.txt", [f"{k} {species.index(b.species) + 1}" for k, b in both])
    lines(root / "train_test_split.txt", [f"{k} {int(not b.is_test)}" for k, b in both])
    boxes = [f"{k} {' '.join(f'{value:.1f}' for value in b.box)}" for k, b in both]
    lines(root / "bounding_boxes.txt", boxes)
    lines(root / "parts" / "parts.txt", [f"{n} {part}" for n, part in enumerate(parts, 1)])
    places = []
    for key, bird in both:
        for number, part in enumerate(parts, 1):
            x, y = bird.seen.get(part, (0.0, 0.0))
            places.append(f"{key} {number} {x:.1f} {y:.1f} {int(part in bird.seen)}")
    lines(root / "parts" / "part_locs.txt", places)


def picture_of(bird: Bird, number: int) -> bytes:
    return jpeg(photograph(bird.seed or number, bird.width, bird.height))


def ellipse(bird: Bird) -> np.ndarray:
    """Its mask [H, W], 255 where all annotators saw the bird, as in CUB's segmentations."""
    x, y, width, height = bird.box
    rows, columns = np.mgrid[0 : bird.height, 0 : bird.width] + 0.5
    inside = ((columns - x) / width - 0.5) ** 2 + ((rows - y) / height - 0.5) ** 2 <= 0.25
    return np.where(inside, 255, 0).astype(np.uint8)


def lines(path: Path, rows: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
