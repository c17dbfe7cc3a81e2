"""Name colours: every pixel gets the name of the nearest prototype in the Oklab colour space.

Oklab (https://bottosson.github.io/posts/oklab/) is perceptual: equal distances look equally
different. A table over 32 levels a channel makes naming a pixel one look-up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

# Several prototypes a name, because a name covers light and dark, vivid and dull variants.
PROTOTYPES = {
    "black": "000000 0c0c0c 181818 1a1410 10141c 201a16",
    "white": "ffffff f4f4f4 ebebeb f6f2ea eef2f6",
    "grey": "2e2e2e 454545 606060 808080 a0a0a0 bcbcbc d2d2d2 6e7478 a8a49c 8a8f94 3a484a",
    "red": "ff0000 d01818 a01010 780c10 e04030 c83c3c 500808 b22222",
    "orange": "ff8000 f09030 e07020 ffa030 d86820 f5a050",
    "yellow": "ffff00 ffe020 f0d030 e8e060 d8c020 fff080 c8b020",
    "olive": "808000 6b6b20 556b2f 8c8440 4a4a1c a0a050 b8b068",
    "green": "00ff00 20a020 108010 50a040 006400 90c060 1c4018 a8d888 2e8b57 405c38 c0e0b0",
    "teal": "008080 20b2aa 40e0d0 308888 105050 80d0c8 00ffff",
    "blue": "0000ff 2040c0 4080e0 1c2c60 87b8e8 4a78a8 000080 b4d0f0 384c70 00a0ff 6898c8",
    "purple": "800080 6030a0 9060c0 4b0082 b090d8 583860 8a2be2 c8a8e0",
    "pink": "ffc0cb ff80b0 ff1493 e07090 f0a0b0 e040c0 ff00ff f8d0d8 d890a0",
    "brown": "8b4513 5c3a1e 9a6030 704828 3c2415 6b4a35 a87048 4c3828 c48040 b86a30 c08048 a85c28",
    "tan": "d2b48c c0a070 b08d60 a08a6c c8a878",
    "beige": "f5f5dc e8dcc0 dccab0 f0e4d0",
}
NAMES = tuple(PROTOTYPES)
MIN_SHARE = 0.12  # a colour on less of an object is not worth a word
MAX_COLOURS = 3
LIGHTNESS_WEIGHT = 0.7  # a shade is still called by its hue
MODIFIER_STEP = 0.12
VIVID_CHROMA, MUTED_CHROMA = 0.18, 0.06
_LEVELS = 32


@dataclass(frozen=True)
class Colour:
    """A colour of a set of pixels and its share of them."""

    name: str
    modifier: str  # "", "light", "dark", "vivid" or "muted"
    share: float

    @property
    def words(self) -> str:
        """The colour in words, such as `dark brown`."""
        return f"{self.modifier} {self.name}".strip()


@dataclass(frozen=True)
class _Table:
    """For each of 32^3 colours: the index of its name, and its place in Oklab."""

    name: npt.NDArray[np.intp]
    lightness: Floats
    chroma: Floats
    hue_deg: Floats
    name_lightness: Floats  # by name: the lightness that needs no modifier


def oklab(pixels: npt.NDArray[np.number]) -> Floats:
    """Oklab [N, 3] of sRGB pixels [N, 3] in 0..255."""
    srgb = np.asarray(pixels, dtype=np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab: Floats = np.cbrt(linear @ to_cones.T) @ to_lab.T
    return lab


def name_colours(pixels: Pixels) -> tuple[Colour, ...]:
    """The up to three dominant colours of pixels [N, 3], the most frequent first."""
    table = _table()
    codes = _codes(pixels)
    names = table.name[codes]
    counts = np.bincount(names, minlength=len(NAMES))
    order = np.argsort(-counts, kind="stable")[:MAX_COLOURS]
    kept = [index for index in order if counts[index] >= MIN_SHARE * len(pixels)] or order[:1]
    total = np.maximum(counts, 1)
    lightness = np.bincount(names, table.lightness[codes], len(NAMES)) / total
    chroma = np.bincount(names, table.chroma[codes], len(NAMES)) / total
    return tuple(
        Colour(
            NAMES[index],
            _modifier(int(index), float(lightness[index]), float(chroma[index])),
            float(counts[index] / len(pixels)),
        )
        for index in kept
    )


def share_like(word: str, pixels: Pixels) -> float:
    """The share of pixels [N, 3] that a person could call by this colour word, read generously."""
    return float(_alike(word)[_codes(pixels)].mean())


def colour_words(words: Iterable[str]) -> list[str]:
    """Those words that name a colour which `share_like` knows."""
    return [word for word in words if word in _HUES or word in _NEUTRAL_WORDS]


# Hue ranges in degrees of Oklab, wide: a phrase is only refuted where nothing comes near it.
_HUES = {
    "red": (-25, 65),
    "scarlet": (-25, 65),
    "crimson": (-25, 65),
    "maroon": (-30, 70),
    "orange": (25, 100),
    "brown": (10, 120),
    "beige": (20, 130),
    "tan": (20, 120),
    "golden": (45, 130),
    "yellow": (65, 135),
    "green": (95, 200),
    "turquoise": (150, 260),
    "teal": (150, 260),
    "blue": (195, 315),
    "purple": (265, 360),
    "violet": (265, 360),
    "pink": (-65, 65),
}
_NEUTRAL_WORDS = frozenset({"black", "white", "grey", "gray", "silver"})
_MIN_CHROMA = 0.025


@lru_cache(maxsize=64)
def _alike(word: str) -> npt.NDArray[np.bool_]:
    table = _table()
    if word in _HUES:
        low, high = _HUES[word]
        is_in = (table.hue_deg - low) % 360 <= high - low
        return is_in & (table.chroma >= _MIN_CHROMA)
    if word == "black":
        return table.lightness < 0.45
    if word == "white":
        return table.lightness > 0.7
    return table.chroma < 0.07


def _codes(pixels: Pixels) -> npt.NDArray[np.intp]:
    levels = (pixels >> 3).astype(np.intp)
    codes: npt.NDArray[np.intp] = (levels[:, 0] << 10) | (levels[:, 1] << 5) | levels[:, 2]
    return codes


@lru_cache(maxsize=1)
def _table() -> _Table:
    grid = np.indices((_LEVELS, _LEVELS, _LEVELS)).reshape(3, -1).T * 8
    # The ends of the scale stand for themselves, so that pure white and black are met exactly.
    lab = oklab(np.where(grid == 248, 255, np.where(grid == 0, 0, grid + 4)))
    prototypes = oklab(np.array([list(bytes.fromhex(code)) for code in _hex_codes()]))
    owners = np.repeat(np.arange(len(NAMES)), [len(PROTOTYPES[n].split()) for n in NAMES])
    weights = np.array([LIGHTNESS_WEIGHT, 1.0, 1.0])
    nearest = _nearest(lab * weights, prototypes * weights)
    name_lightness = np.bincount(owners, prototypes[:, 0]) / np.bincount(owners)
    chroma, hue = np.hypot(lab[:, 1], lab[:, 2]), np.degrees(np.arctan2(lab[:, 2], lab[:, 1]))
    return _Table(owners[nearest], lab[:, 0], chroma, hue, name_lightness)


def _nearest(points: Floats, prototypes: Floats) -> npt.NDArray[np.intp]:
    # |p - q|^2 without |p|^2, which is the same for every prototype of a point.
    distances: Floats = (prototypes**2).sum(axis=1) - 2 * points @ prototypes.T
    nearest: npt.NDArray[np.intp] = distances.argmin(axis=1)
    return nearest


def _hex_codes() -> list[str]:
    return [code for name in NAMES for code in PROTOTYPES[name].split()]


def _modifier(index: int, lightness: float, chroma: float) -> str:
    name = NAMES[index]
    if name in ("black", "white"):
        return ""
    usual = float(_table().name_lightness[index])
    has_hue = name not in ("grey", "beige", "tan", "brown", "olive")
    if has_hue and chroma > VIVID_CHROMA:
        return "vivid"
    if abs(lightness - usual) > MODIFIER_STEP:
        return "light" if lightness > usual else "dark"
    if not has_hue:
        return ""
    return "muted" if chroma < MUTED_CHROMA else ""
