"""Which photographs the sample uses, what they show, and which only the benchmark may use."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

import yaml

from components.core.errors import InputError

STAMPS = "stamps"
BACKGROUNDS = "backgrounds"
HELD_OUT_OBJECTS = 0.2  # share of the object names that only the benchmark shows
HELD_OUT_BACKGROUNDS = 0.3


@dataclass(frozen=True)
class StampRules:
    """Which files of the stamps' package are photographs, and how large they appear."""

    package: str
    folder: str
    folders: dict[str, tuple[float, float]]
    excluded: Sequence[str]
    phrases: dict[str, str]

    def accepts(self, name: str) -> bool:
        """Whether the stamp `animals/birds/owl` is a photograph that is used."""
        return (
            name.rpartition("/")[0] in self.folders
            and not name.endswith("_mirror")
            and not any(fnmatch(name, pattern) for pattern in self.excluded)
        )


@dataclass(frozen=True)
class Catalogue:
    """The photographs of all packages; `backgrounds` is package -> patterns of paths."""

    stamps: StampRules
    backgrounds: dict[str, list[str]]

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages that hold the photographs."""
        return (self.stamps.package, *self.backgrounds)


@dataclass(frozen=True)
class ObjectPhoto:
    """A cut-out photograph of one thing."""

    path: Path
    phrase: str
    min_share: float  # of the scene's height
    max_share: float
    may_mirror: bool


@dataclass(frozen=True)
class Photographs:
    """Everything that scenes are made of; training and benchmark never share a background."""

    seen_objects: tuple[ObjectPhoto, ...]
    held_out_objects: tuple[ObjectPhoto, ...]
    train_backgrounds: tuple[Path, ...]
    benchmark_backgrounds: tuple[Path, ...]


@lru_cache(maxsize=1)
def load_catalogue() -> Catalogue:
    """The catalogue beside this file."""
    content = yaml.safe_load(Path(__file__).with_name("catalogue.yaml").read_text(encoding="utf-8"))
    return Catalogue(StampRules(**content["stamps"]), content["backgrounds"])


def load_photographs(folder: Path) -> Photographs:
    """The fetched photographs, split by what they show.

    Raises:
        InputError: they were not fetched, or too few of them.
    """
    objects = _objects(folder / STAMPS)
    backgrounds = sorted(path for path in (folder / BACKGROUNDS).glob("*/*.jpg"))
    if len(objects) < 30 or len(backgrounds) < 6:
        raise InputError(
            f"{folder} holds {len(objects)} objects and {len(backgrounds)} backgrounds, too few "
            "for scenes; fetch them by `make setup` or "
            f"`python -m components.data.sample_grit.photographs --into {folder}`"
        )
    unseen = held_out((photo.phrase for photo in objects), HELD_OUT_OBJECTS)
    unseen_views = held_out((path.name for path in backgrounds), HELD_OUT_BACKGROUNDS)
    return Photographs(
        seen_objects=tuple(photo for photo in objects if photo.phrase not in unseen),
        held_out_objects=tuple(photo for photo in objects if photo.phrase in unseen),
        train_backgrounds=tuple(p for p in backgrounds if p.name not in unseen_views),
        benchmark_backgrounds=tuple(p for p in backgrounds if p.name in unseen_views),
    )


def held_out(names: Iterable[str], share: float) -> frozenset[str]:
    """The share of distinct names that only the benchmark shows.

    Ranked by digest and not by the seed: a model trained on a sample of one seed must not have
    seen what the benchmark of another seed holds out.
    """
    ranked = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return frozenset(ranked[: round(len(ranked) * share)])


def noun_phrase(description: str) -> str:
    """The noun phrase at the start of a description, or "" if it starts with something else.

    `A mince pie is a traditional food. It ...` -> `a mince pie`.
    """
    text = re.sub(r"[“”\"]", "", description).strip()
    text = re.split(r"[.!?,;:—(]| (?:is|are|lets|resembles|called|used)\b", text)[0].strip()
    article, _, noun = text.partition(" ")
    if article.lower() not in {"a", "an", "two", "some"} or not noun:
        return ""
    return f"{article.lower()} {noun}"


def _objects(folder: Path) -> list[ObjectPhoto]:
    rules = load_catalogue().stamps
    photos = []
    for path in sorted(folder.rglob("*.png")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        description = path.with_suffix(".txt").read_text(encoding="utf-8")
        phrase = rules.phrases.get(name) or noun_phrase(description)
        if rules.accepts(name) and phrase:
            shares = rules.folders[name.rpartition("/")[0]]
            hints = path.with_suffix(".dat")
            may_mirror = not (hints.exists() and "nomirror" in hints.read_text(encoding="utf-8"))
            photos.append(ObjectPhoto(path, phrase, *shares, may_mirror))
    return photos
