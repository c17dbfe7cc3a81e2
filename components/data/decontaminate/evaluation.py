"""The images that evaluation sets test with, by bytes and by perceptual hash, also mirrored.

Each image is decoded once: its hashes are kept by the digest of its bytes, those of an object in S3
by its ETag, so that it is not even fetched again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ImageOps

from components.core.image_hash import perceptual_hash
from components.core.process import num_cores
from components.core.progress import progress
from components.data.decontaminate.settings import DecontaminateSettings
from components.data.formats.files import Files, open_files
from components.data.formats.parts import TRAIN
from components.data.formats.sources import open_sources, place_name
from pixclip.images import ImageError, open_image
from pixclip.near_duplicates import Hashes

CACHE_NAME = "hashes-1.jsonl"  # of rules of hashing; other rules have another name
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
BATCH_IMAGES = 1024


@dataclass(frozen=True)
class HashedImage:
    """An evaluation image; hashes are empty if it cannot be decoded."""

    place: str  # evaluation set and path, for people
    sha256: str
    phash: str
    mirrored: str


@dataclass(frozen=True)
class EvaluationImages:
    """All evaluation images, as columns."""

    places: list[str]
    by_sha256: dict[str, int]
    hashes: Hashes  # [M], as they are and mirrored
    positions: list[int]  # [M], of `places`
    is_mirrored: list[bool]  # [M]
    counts: Counter[str]


def read_evaluation_images(settings: DecontaminateSettings, work: Path) -> EvaluationImages:
    """Hash the test images of every named set that are not hashed yet.

    Raises:
        InputError: a set is not there, or not laid out as its format is.
    """
    counts = Counter[str](
        evaluation_images=0, evaluation_images_missing=0, evaluation_images_unreadable=0
    )
    found: list[HashedImage] = []
    cache = HashCache(Path(settings.cache_folder) if settings.cache_folder else work)
    for name, files, wanted in _wanted(settings, work / "sources"):
        there = [file for file in wanted if file in files.names]
        counts["evaluation_images"] += len(wanted)
        counts["evaluation_images_missing"] += len(wanted) - len(there)
        found += _hash_all(name, files, there, cache)
    counts["evaluation_images_unreadable"] = sum(not image.phash for image in found)
    return _columns(found, counts)


def _wanted(
    settings: DecontaminateSettings, folder: Path
) -> Iterator[tuple[str, Files, list[str]]]:
    """Name and files of every set, and which of them are, or may be, test images."""
    for opened in open_sources(settings, folder, ""):
        # An image whose split nobody knows may be a test image.
        names = (image.file for image in opened.images if image.split != TRAIN)
        yield opened.name, opened.files, list(dict.fromkeys(names))
    if settings.evaluation_images:
        place = folder / place_name("evaluation_images", settings.evaluation_images)
        files = open_files(settings.evaluation_images, settings.endpoint_url, place)
        yield (
            "evaluation_images",
            files,
            sorted(n for n in files.names if n.lower().endswith(ENDINGS)),
        )


class HashCache:
    """Hashes by the content of images, a line each in a file that only grows."""

    def __init__(self, folder: Path) -> None:
        """Reads what is there; a line that a killed run left unfinished is passed over."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / CACHE_NAME
        self._known: dict[str, tuple[str, str, str]] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            key, sha256, phash, mirrored = json.loads(line)
        except (ValueError, TypeError):
            return
        if all(isinstance(value, str) for value in (key, sha256, phash, mirrored)):
            self._known[key] = (sha256, phash, mirrored)

    def get(self, key: str) -> tuple[str, str, str] | None:
        """SHA-256, hash and mirrored hash."""
        return self._known.get(key)

    def add(self, entries: Iterable[tuple[str, tuple[str, str, str]]]) -> None:
        """Keep hashes by their keys."""
        new = {key: hashes for key, hashes in entries if key not in self._known}
        self._known |= new
        lines = (json.dumps([key, *hashes]) for key, hashes in new.items())
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(f"\n{line}" for line in lines))


def _hash_all(name: str, files: Files, wanted: list[str], cache: HashCache) -> list[HashedImage]:
    def hash_one(file: str) -> tuple[str, HashedImage]:
        key, hashes = _hashes(files, file, cache)
        return key, HashedImage(f"{name}: {files.address}/{file}", *hashes)

    found: list[HashedImage] = []
    with (
        progress(f"hash {name}", len(wanted), unit="image") as bar,
        ThreadPoolExecutor(num_cores()) as pool,
    ):
        for start in range(0, len(wanted), BATCH_IMAGES):
            made = []
            for one in pool.map(hash_one, wanted[start : start + BATCH_IMAGES]):
                made.append(one)
                bar.update()
            cache.add((key, (i.sha256, i.phash, i.mirrored)) for key, i in made)
            found += [image for _, image in made]
    return found


def _hashes(files: Files, file: str, cache: HashCache) -> tuple[str, tuple[str, str, str]]:
    """The key of an image's content, and its SHA-256, hash and mirrored hash."""
    key = files.version(file)
    if key and (known := cache.get(key)):
        return key, known
    data = files.read(file)
    sha256 = hashlib.sha256(data).hexdigest()
    key = key or sha256
    if known := cache.get(key):
        return key, known
    try:
        image = open_image(data)
    except ImageError:
        return key, (sha256, "", "")
    return key, (sha256, perceptual_hash(image), perceptual_hash(ImageOps.mirror(image)))


def _columns(images: list[HashedImage], counts: Counter[str]) -> EvaluationImages:
    rows: list[tuple[int, int, bool]] = []
    for position, image in enumerate(images):
        if image.phash:
            rows.append((int(image.phash, 16), position, False))
            rows.append((int(image.mirrored, 16), position, True))
    by_sha256: dict[str, int] = {}
    for position, image in enumerate(images):
        by_sha256.setdefault(image.sha256, position)
    return EvaluationImages(
        places=[image.place for image in images],
        by_sha256=by_sha256,
        hashes=np.array([row[0] for row in rows], dtype=np.uint64),
        positions=[row[1] for row in rows],
        is_mirrored=[row[2] for row in rows],
        counts=counts,
    )
