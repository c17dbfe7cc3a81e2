"""`pixclip sample-grit`: real photographs as a GRIT Parquet and image files.

The scenes are composed: three cut-out photographs on a photographic background. They look pasted
and are no natural photographs; their worth is that masks, names and places are known exactly.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from pydantic import Field

from components.core.progress import progress
from components.core.step import Metrics, Out, StepSettings, runtime, step
from components.core.tables import Row, part_name, write_rows
from components.data.sample_grit.catalogue import Photographs, load_photographs
from components.data.sample_grit.photographs import DEFAULT_FOLDER
from components.data.sample_grit.records import (
    DEAD_URL,
    DUPLICATE_IMAGE,
    KEPT_SHARE,
    TRUNCATED_IMAGE,
    Label,
    break_record,
    draw_scene,
    label_of,
    plan_faults,
    record_of,
    with_whole_image,
)
from data_contracts.grit import PARTS_SCHEMA, SAMPLE_SCHEMA


class SampleGritSettings(StepSettings):
    """Size, seed and share of broken records."""

    num_scenes: int = Field(300, description="number of records, three objects each", ge=1)
    seed: int = Field(0, description="seed of everything that is drawn", ge=0)
    width_px: int = Field(640, description="width of a scene in pixels", ge=160, le=1600)
    height_px: int = Field(480, description="height of a scene in pixels", ge=160, le=1600)
    benchmark_share: float = Field(
        0.2, description="share of scenes in the benchmark split, in [0, 1]", ge=0, le=1
    )
    fault_share: float = Field(
        0.12, description="share of records that are broken on purpose, in [0, 1]", ge=0, le=1
    )
    whole_images: bool = Field(
        False, description="add each image as a region, whose parts the objects are (FG-Part)"
    )
    photographs: str = runtime(str(DEFAULT_FOLDER), "folder of the fetched photographs")


@step(image="data", version=2)
def sample_grit(grit: Out, settings: SampleGritSettings) -> Metrics:
    """Compose scenes of real photographs with exact masks, some broken on purpose."""
    photographs = load_photographs(Path(settings.photographs))
    images = grit / "images"
    images.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()

    def counted(rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            counts[f"records.{row['split']}"] += 1
            counts["regions"] += len(row["ref_exps"])
            if row["fault"]:
                counts[f"fault.{row['fault']}"] += 1
            yield row

    rows = counted(make_records(photographs, images, settings))
    num_records = write_rows(
        grit / part_name(0), rows, PARTS_SCHEMA if settings.whole_images else SAMPLE_SCHEMA
    )
    return {"records": num_records, **dict(sorted(counts.items()))}


def make_records(
    photographs: Photographs, images: Path, settings: SampleGritSettings
) -> Iterator[Row]:
    """The records in order; their image files are written on the way."""
    faults = plan_faults(settings.num_scenes, settings.fault_share, settings.seed)
    originals: dict[Label, Row] = {}  # the latest sound record of each kind
    with progress("compose scenes", settings.num_scenes, unit="scene") as bar:
        for number in range(settings.num_scenes):
            label = label_of(number, settings.benchmark_share)
            fault = faults.get(number, "")
            if fault == DUPLICATE_IMAGE and label in originals:
                yield copy_record(originals[label], number, images)
            else:
                row = make_record(number, fault, photographs, images, settings)
                if not row["fault"]:
                    originals[label] = row
                yield row
            bar.update()


def make_record(
    number: int, fault: str, photographs: Photographs, images: Path, settings: SampleGritSettings
) -> Row:
    """A new scene with its image file; a duplicate that has no original yet is a sound record."""
    # Each scene has a generator of its own: a larger sample starts with the smaller one.
    random = Random(f"{settings.seed}-{number}")  # noqa: S311 - reproducible, not secret
    label = label_of(number, settings.benchmark_share)
    scene = draw_scene(photographs, label, settings.width_px, settings.height_px, random)
    row = record_of(number, label, scene, random)
    if settings.whole_images:
        row = with_whole_image(row)
    if fault and fault != DUPLICATE_IMAGE:
        row = break_record(row, fault, random)
    write_image(images, row, scene.jpeg())
    return row


def copy_record(original: Row, number: int, images: Path) -> Row:
    """The same image and regions under another id and address."""
    row = {**original, "id": number, "key": f"{number:09d}", "fault": DUPLICATE_IMAGE}
    row["url"] = f"file:///images/{row['key']}.jpg"
    write_image(images, row, (images / f"{original['key']}.jpg").read_bytes())
    return row


def write_image(images: Path, row: Row, jpeg: bytes) -> None:
    """The image file of a record, as far as its fault lets it exist."""
    if row["fault"] == DEAD_URL:
        return
    if row["fault"] == TRUNCATED_IMAGE:
        jpeg = jpeg[: int(len(jpeg) * KEPT_SHARE)]
    (images / f"{row['key']}.jpg").write_bytes(jpeg)
