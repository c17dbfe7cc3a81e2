"""Where the objects of a scene stand: inside the image, apart, each in a part of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

MARGIN_PX = 6
MAX_OVERLAP = 0.08  # of the smaller of two boxes
TRIES_PER_SIZE = 40
SHRINK = 0.92
PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)


@dataclass(frozen=True)
class Place:
    """An object's rectangle in pixels of the scene."""

    x: int
    y: int
    width: int
    height: int

    @property
    def area(self) -> int:
        """Area in pixels."""
        return self.width * self.height

    @property
    def bottom(self) -> int:
        """The row below the rectangle."""
        return self.y + self.height


def place_name(center_x: float, center_y: float) -> str:
    """What one calls a point of the image, given as shares of its width and height."""
    column, row = min(int(center_x * 3), 2), min(int(center_y * 3), 2)
    return PLACES[row][column]


def lay_out(
    sizes: Sequence[tuple[int, int]], width_px: int, height_px: int, random: Random
) -> list[Place]:
    """A place for every object of that (width, height), made smaller if there is no room."""
    scale = 1.0
    while True:
        scaled = [(max(1, round(w * scale)), max(1, round(h * scale))) for w, h in sizes]
        for _ in range(TRIES_PER_SIZE):
            places = [_anywhere(size, width_px, height_px, random) for size in scaled]
            if _is_clear(places, width_px, height_px):
                return places
        scale *= SHRINK
        assert scale > 0.01, f"no room for {sizes} in {width_px} x {height_px}"


def _anywhere(size: tuple[int, int], width_px: int, height_px: int, random: Random) -> Place:
    width, height = size
    room_x, room_y = width_px - width - 2 * MARGIN_PX, height_px - height - 2 * MARGIN_PX
    if room_x < 0 or room_y < 0:
        return Place(-1, -1, width, height)
    x = MARGIN_PX + random.randint(0, room_x)
    # Things stand on a ground more often than they fly.
    y = MARGIN_PX + round(random.triangular(0, room_y, 0.7 * room_y))
    return Place(x, y, width, height)


def _is_clear(places: Sequence[Place], width_px: int, height_px: int) -> bool:
    names = {
        place_name((p.x + p.width / 2) / width_px, (p.y + p.height / 2) / height_px) for p in places
    }
    return (
        all(place.x >= 0 for place in places)
        and len(names) == len(places)
        and all(overlap(a, b) <= MAX_OVERLAP for a, b in combinations(places, 2))
    )


def overlap(first: Place, second: Place) -> float:
    """The shared area as a share of the smaller rectangle."""
    width = min(first.x + first.width, second.x + second.width) - max(first.x, second.x)
    height = min(first.bottom, second.bottom) - max(first.y, second.y)
    return max(width, 0) * max(height, 0) / min(first.area, second.area)
