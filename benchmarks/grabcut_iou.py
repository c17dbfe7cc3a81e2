"""How well GrabCut finds the sample's objects: intersection over union with their exact masks.

    python benchmarks/grabcut_iou.py [--scenes 300] [--threads 1]

Scenes of `pixclip sample-grit`, none broken on purpose, each object's tight box given. The box
itself is the baseline; what the step would quarantine counts as 0.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.core.tables import Row, read_rows
from components.data.sample_grit.step import SampleGritSettings, sample_grit
from components.data.segment.grabcut import GrabCutSegmenter
from components.data.segment.segmenter import BoxSegmenter, Prompt, Segmenter, judge_mask
from components.data.segment.settings import GrabCutSettings, MaskRules
from pixclip.images import open_image
from pixclip.masks import Mask, Rle, decode_mask, mask_iou

Task = tuple[Prompt, list[Mask]]


def read_tasks(grit: Path) -> Iterator[Task]:
    """Each scene with its boxes, and the exact masks of its objects."""
    for row in read_rows(grit):
        image = open_image((grit / "images" / f"{row['key']}.jpg").read_bytes())
        yield (
            Prompt(image, tuple(pixel_box(row, ref) for ref in row["ref_exps"])),
            [decode_mask(Rle(row["height"], row["width"], counts)) for counts in row["masks"]],
        )


def pixel_box(row: Row, ref: list[float]) -> tuple[float, float, float, float]:
    """A region's box in pixels."""
    width, height = row["width"], row["height"]
    return ref[2] * width, ref[3] * height, ref[4] * width, ref[5] * height


def ious(segmenter: Segmenter, task: Task) -> list[float]:
    """The agreement of each made mask with the truth."""
    prompt, truths = task
    (results,) = segmenter.segment([prompt])
    verdicts = [
        judge_mask(result.mask, box, MaskRules())
        for result, box in zip(results, prompt.boxes, strict=True)
    ]
    return [
        0.0 if verdict.reason else mask_iou(verdict.mask, truth)
        for verdict, truth in zip(verdicts, truths, strict=True)
    ]


def measure(segmenter: Segmenter, tasks: list[Task], num_threads: int) -> dict[str, float]:
    """Mean and spread of the agreement, and the time."""
    start, cpu_start = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(num_threads) as pool:
        found = [
            iou for part in pool.map(lambda task: ious(segmenter, task), tasks) for iou in part
        ]
    tenths = statistics.quantiles(found, n=10)
    numbers = {
        "mean_iou": statistics.mean(found),
        "median_iou": statistics.median(found),
        "worst_tenth_iou": tenths[0],
        "share_over_0.8": sum(iou > 0.8 for iou in found) / len(found),
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,  # steadier on a busy machine
    }
    return {"num_regions": len(found)} | {name: round(v, 3) for name, v in numbers.items()}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        grit = Path(folder) / "grit"
        settings = SampleGritSettings(num_scenes=options.scenes, fault_share=0)
        sample_grit.function(grit=grit, settings=settings)
        tasks = list(read_tasks(grit))
    segmenters = {"box": BoxSegmenter(), "grabcut": GrabCutSegmenter(GrabCutSettings())}
    told = {name: measure(s, tasks, options.threads) for name, s in segmenters.items()}
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
