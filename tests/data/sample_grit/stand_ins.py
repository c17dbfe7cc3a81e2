"""Drawn stand-ins in the place of the fetched photographs: tests need no network."""

from pathlib import Path

from PIL import Image, ImageDraw

NUM_OBJECTS = 36
NUM_BACKGROUNDS = 8


def draw_photographs(folder: Path) -> Path:
    """A folder as `fetch_photographs` leaves it, with discs and striped backgrounds."""
    stamps = folder / "stamps" / "animals" / "birds"
    stamps.mkdir(parents=True)
    for number in range(NUM_OBJECTS):
        image = Image.new("RGBA", (90, 60 + number), (0, 0, 0, 0))
        color = (number * 7 % 256, number * 53 % 256, number * 101 % 256, 255)
        ImageDraw.Draw(image).ellipse((4, 4, 86, 55 + number), fill=color)
        image.save(stamps / f"bird{number:02d}.png")
        (stamps / f"bird{number:02d}.txt").write_text(f"A bird of kind {number}.\n")
    views = folder / "backgrounds" / "views"
    views.mkdir(parents=True)
    for number in range(NUM_BACKGROUNDS):
        image = Image.new("RGB", (700, 500), (255 - number * 30, 128, number * 30))
        for x in range(0, 700, 20 + number):
            ImageDraw.Draw(image).line((x, 0, 700 - x, 500), fill=(x % 256, 90, 200), width=4)
        image.save(views / f"view{number}.jpg")
    return folder
