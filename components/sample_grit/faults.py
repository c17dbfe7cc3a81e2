"""Break records on purpose, so that gates, quarantine and report have something to show.

Each fault has one place where it must end; a fault of a region breaks one region of its record.

| fault | breaks | ends in | with the reason |
|---|---|---|---|
| `box_outside_image` | one region | select | `box_outside_image` |
| `tiny_box` | one region | select | `tiny_box` |
| `wrong_offsets` | one region | select | `wrong_offsets` |
| `low_score` | one region | select | `low_score` |
| `low_similarity` | the record | select | `low_clip_similarity` |
| `dead_url` | the record | ingest | a failed download |
| `truncated_image` | the record | ingest | `truncated_image` |
| `duplicate_image` | the record | deduplicate | an exact duplicate of an earlier record |
"""

from collections.abc import Callable
from random import Random

from components.kernel.tables import Row

# `.invalid` never resolves (RFC 2606): a dead address on every machine, also without a network.
DEAD_HOST = "dead.invalid"
KEPT_SHARE = 0.55  # of a truncated image's bytes
DUPLICATE_IMAGE = "duplicate_image"
TRUNCATED_IMAGE = "truncated_image"
DEAD_URL = "dead_url"

Region = list[float]  # start, end, x1, y1, x2, y2, score


def move_outside(region: Region, row: Row, random: Random) -> Region:
    """The box runs over the right edge of the image."""
    start, end, x1, y1, x2, y2, score = region
    shift = 1.0 - x1 - (x2 - x1) * random.uniform(0.2, 0.6)
    return [start, end, x1 + shift, y1, x2 + shift, y2, score]


def make_tiny(region: Region, row: Row, random: Random) -> Region:
    """The box is two or three pixels wide and high."""
    start, end, x1, y1, _, _, score = region
    side = random.choice((2, 3))
    return [start, end, x1, y1, x1 + side / row["width"], y1 + side / row["height"], score]


def misplace_offsets(region: Region, row: Row, random: Random) -> Region:
    """The offsets point behind the end of the caption."""
    shift = float(len(row["caption"]) + random.randint(1, 40))
    return [region[0] + shift, region[1] + shift, *region[2:]]


def lower_score(region: Region, row: Row, random: Random) -> Region:
    """The detector was not sure of this box."""
    return [*region[:6], round(random.uniform(0.30, 0.60), 6)]


REGION_FAULTS: dict[str, Callable[[Region, Row, Random], Region]] = {
    "box_outside_image": move_outside,
    "tiny_box": make_tiny,
    "wrong_offsets": misplace_offsets,
    "low_score": lower_score,
}
FAULTS = (
    DEAD_URL,
    TRUNCATED_IMAGE,
    "box_outside_image",
    "tiny_box",
    DUPLICATE_IMAGE,
    "wrong_offsets",
    "low_score",
    "low_similarity",
)


def plan_faults(num_records: int, share: float, seed: int) -> dict[int, str]:
    """Record number -> fault: that share of the records, every kind equally often."""
    random = Random(f"{seed}-faults")  # noqa: S311 - reproducible, not secret
    broken = sorted(random.sample(range(num_records), round(num_records * share)))
    return {number: FAULTS[turn % len(FAULTS)] for turn, number in enumerate(broken)}


def break_record(row: Row, fault: str, random: Random) -> Row:
    """A copy of a record with this fault, and the fault's name in it."""
    broken = {**row, "fault": fault}
    if fault in REGION_FAULTS:
        regions = [list(region) for region in row["ref_exps"]]
        index = random.randrange(len(regions))
        regions[index] = REGION_FAULTS[fault](regions[index], row, random)
        broken["ref_exps"] = regions
    elif fault == "low_similarity":
        broken["clip_similarity_vitl14"] = round(random.uniform(0.02, 0.10), 6)
    elif fault == DEAD_URL:
        broken["url"] = f"http://{DEAD_HOST}/{row['key']}.jpg"
    return broken
