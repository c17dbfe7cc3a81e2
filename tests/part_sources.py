"""Small part-annotated data sets, written exactly in the layouts that are published."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

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
    names = ["1 has_bill_shape::curved_(up_or_down)", "2 has_wing_color::blue"]
    lines(folder / "attributes.txt", names)
    labels = [f"{n} 1 1 4 3.2\n{n} 2 0 3 1.5" for n in range(1, len(birds) + 1)]
    lines(root / "attributes" / "image_attribute_labels.txt", labels)
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


BIRDSNAP_PARTS = (
    "back",
    "beak",
    "belly",
    "breast",
    "crown",
    "forehead",
    "left_cheek",
    "left_eye",
    "left_leg",
    "left_wing",
    "nape",
    "right_cheek",
    "right_eye",
    "right_leg",
    "right_wing",
    "tail",
    "throat",
)


def write_birdsnap(folder: Path, birds: Sequence[Bird], *, dead: Sequence[int] = ()) -> Path:
    """`folder/birdsnap` after get_birdsnap.py, which could not fetch the photographs of `dead`."""
    root = folder / "birdsnap"
    species = sorted({bird.species for bird in birds})
    header = ["url", "md5", "path", "species_id", "bb_x1", "bb_y1", "bb_x2", "bb_y2"]
    header += [f"{part}_{axis}" for part in BIRDSNAP_PARTS for axis in "xy"]
    rows, test = ["\t".join(header)], ["path"]
    for number, bird in enumerate(birds):
        content = picture_of(bird, 100 + number)
        path = f"{bird.species}/{700000 + number}.jpg"
        if number not in dead:
            put(root / "download" / "images" / path, content)
        if bird.is_test:
            test.append(path)
        x, y, width, height = bird.box
        box = (x, y, x + width, y + height)
        row = [f"http://farm1.staticflickr.com/{number}.jpg", md5(content).hexdigest(), path]
        row += [str(species.index(bird.species) + 1), *(f"{value:g}" for value in box)]
        for part in BIRDSNAP_PARTS:
            point = bird.seen.get(part.replace("_", " "), ())
            row += [f"{value:g}" for value in point] or ["", ""]
        rows.append("\t".join(row))
    lines(root / "images.txt", rows)
    lines(root / "test_images.txt", test)
    names = [name.replace("_", " ") for name in species]
    table = [f"{n}\t{name}\tAvis avis\t{name}" for n, name in enumerate(names, 1)]
    lines(root / "species.txt", ["id\tcommon\tscientific\tdir", *table])
    return root


@dataclass(frozen=True)
class Machine:
    """A photograph of an aircraft or a car; box x1, y1, x2, y2 counted from 1."""

    is_test: bool = False
    labels: tuple[str, ...] = ("707-320", "Boeing 707", "Boeing")
    width: int = 320
    height: int = 240
    box: tuple[int, int, int, int] = (41, 61, 280, 200)


def write_aircraft(folder: Path, aircraft: Sequence[Machine]) -> Path:
    """`folder/fgvc-aircraft-2013b`."""
    root = folder / "fgvc-aircraft-2013b" / "data"
    keys = [f"{34309 + number:07d}" for number in range(len(aircraft))]
    both = list(zip(keys, aircraft, strict=True))
    for number, (key, plane) in enumerate(both):
        picture = photograph(200 + number, plane.width, plane.height)
        picture.paste((0, 0, 0), (0, plane.height - 20, plane.width, plane.height))  # the banner
        put(root / "images" / f"{key}.jpg", jpeg(picture))
    lines(root / "images_box.txt", [f"{k} {' '.join(map(str, p.box))}" for k, p in both])
    files = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}
    for level, (name, file) in enumerate(files.items()):
        train = [f"{key} {plane.labels[level]}" for key, plane in both if not plane.is_test]
        test = [f"{key} {plane.labels[level]}" for key, plane in both if plane.is_test]
        lines(root / f"images_{name}_train.txt", train[: len(train) // 2])
        lines(root / f"images_{name}_val.txt", train[len(train) // 2 :])
        lines(root / f"images_{name}_trainval.txt", train)
        lines(root / f"images_{name}_test.txt", test)
        lines(root / f"{file}.txt", sorted({plane.labels[level] for plane in aircraft}))
    return root.parent


def write_cars(folder: Path, cars: Sequence[Machine], *, is_old: bool = False) -> Path:
    """`folder/stanford_cars` with the devkit, or with the one file of the older layout."""
    root = folder / "stanford_cars"
    names = sorted({car.labels[0] for car in cars})
    classes = {"class_names": np.array([[*names, ""]], dtype=object)[:, :-1]}
    rows: dict[bool, list[tuple[object, ...]]] = {False: [], True: []}
    for number, car in enumerate(cars):
        place = f"{len(rows[car.is_test]) + 1:05d}.jpg"
        path = f"car_ims/{number + 1:06d}.jpg"
        target = path if is_old else f"cars_{'test' if car.is_test else 'train'}/{place}"
        put(root / target, jpeg(photograph(300 + number, car.width, car.height)))
        box = [np.uint16(value) for value in car.box]
        label = np.uint8(names.index(car.labels[0]) + 1)
        row = (path, *box, label, np.uint8(car.is_test)) if is_old else (*box, label, place)
        rows[car.is_test].append(row)
    box_names = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"]
    if is_old:
        fields = ["relative_im_path", *box_names, "class", "test"]
        table = structs(rows[False] + rows[True], fields)
        savemat(root / "cars_annos.mat", {"annotations": table, **classes}, do_compression=True)
        return root
    fields = [*box_names, "class", "fname"]
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", classes)
    train, test = ({"annotations": structs(rows[is_test], fields)} for is_test in (False, True))
    savemat(root / "devkit" / "cars_train_annos.mat", train)
    savemat(root / "cars_test_annos_withlabels.mat", test, do_compression=True)
    return root


def structs(rows: Sequence[tuple[object, ...]], fields: Sequence[str]) -> np.ndarray:
    """A MATLAB array of structs [1, rows]."""
    table = np.zeros((1, len(rows)), dtype=[(name, object) for name in fields])
    for number, row in enumerate(rows):
        table[0, number] = row
    return table


def write_coco(folder: Path, *, file_name: str = "a/1.jpg", **changes: object) -> Path:
    """`folder/coco` with one image and two parts."""
    root = folder / "coco"
    put(root / "images" / file_name, jpeg(photograph(400, 320, 240)))
    outline = [150, 40, 200, 40, 200, 60, 150, 60]
    content = {
        "images": [{"id": 1, "file_name": file_name, "width": 320, "height": 240}],
        "categories": [
            {"id": 1, "name": "wheel", "supercategory": "bicycle"},
            {"id": 2, "name": "saddle", "supercategory": "bicycle"},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 120, 100, 100]},
            {"id": 2, "image_id": 1, "category_id": 2, "segmentation": [outline]},
        ],
    }
    put(root / "annotations.json", json.dumps(content | changes).encode())
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
