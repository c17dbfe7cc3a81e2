"""What do long, short and part captions each bring PA-CLIP? Rows, seeds, a table.

    make part-ablation             # about half an hour on two cores; resumes after a kill
    python benchmarks/part_ablation.py --scenes 200 --seeds 1 --steps 10 --rows long parts  # a try

The rows are those of the paper's Table 3: which captions are trained. Makes FG-Part of composed
scenes, one tokenizer and a random model for each seed. From that model each row of the seed learns
for the same number of steps, from the same images in the same order, and is asked the benchmark of
`evaluate_parts`. Everything is made by the pipeline's steps and a rerun repeats nothing. The table
replaces what follows the marker in docs/part-ablation.md.
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation import NO_PICTURES, ROOT, SUBSETS, build, read_json, step, table, write_below

MARKER = "<!-- The rest of this page is written by benchmarks/part_ablation.py. -->"
METRICS = {
    "scene_accuracy": "in scene",
    "text_to_mask_r1": "text → part R@1",
    "text_to_mask_r10": "text → part R@10",
    "short_text_to_mask_r1": "short text → part R@1",
    "image_to_text_r1": "image → text R@1",
    "text_to_image_r1": "text → image R@1",
}
IMAGES_A_STEP = 24  # the recipe's batch
PARTS_FILE = "paclip.yaml"
UNTRAINED = "untrained parent"


@dataclass(frozen=True)
class Row:
    """A line of the table, and what is changed of the recipe's stage for it."""

    title: str
    changes: Mapping[str, Any]


NO_PARTS = {"losses.alpha": 0.0, "data.parts_per_image": 0}
NO_WHOLE = {"losses.short": 0.0, "losses.long": 0.0}
ROWS = {
    "long": Row("long", {**NO_PARTS, "losses.short": 0.0}),
    "short": Row("short", {**NO_PARTS, "losses.long": 0.0}),
    "parts": Row("parts", NO_WHOLE),
    "short_long": Row("short + long", NO_PARTS),
    "all": Row("short + long + parts", {}),
    "hard": Row("the same, hard negatives on", {"losses.hard": 0.5, "data.hard_negatives": 3}),
}


@dataclass(frozen=True)
class Study:
    """Where everything is, and how long models learn."""

    folder: Path
    num_seeds: int
    num_steps: int

    @property
    def dataset(self) -> Path:
        """FG-Part."""
        return self.folder / "fgpart"

    def parent(self, seed: int) -> Path:
        """The random model that the rows of a seed begin with."""
        return self.folder / "parents" / str(seed)

    def run(self, row: str, seed: int) -> Path:
        """What a row's model of a seed leaves."""
        return self.folder / row / str(seed)


def main() -> None:
    """Make what is missing, then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=Path("runs/part-ablation"))
    parser.add_argument("--scenes", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "part-ablation.md")
    arguments = parser.parse_args()
    study = Study(arguments.into.absolute(), arguments.seeds, arguments.steps)
    make_parents(study, arguments.scenes)
    train_all(study, arguments.rows)
    write_page(arguments.page, study, arguments.rows)
    sys.stdout.write(f"{arguments.page}\n")


def make_parents(study: Study, num_scenes: int) -> None:
    """The data set, its tokenizer and a random model of each seed."""
    build("fgpart", study.folder, num_scenes)
    tower = study.folder / "tokenizer"
    made = {"dataset": study.dataset, "text_tower": tower}
    step("make_tokenizer", made, study.folder, params_file=PARTS_FILE)
    for seed in range(study.num_seeds):
        made = {"text_tower": tower, "parent": study.parent(seed)}
        step("init_model", made, study.folder, {"seed": seed}, PARTS_FILE)


def train_all(study: Study, rows: list[str]) -> None:
    """Train and ask all models, one after the other; a seed's rows before the next seed's."""
    order = [(row, seed) for seed in range(study.num_seeds) for row in rows]
    for number, (row, seed) in enumerate(order, start=1):
        started = time.monotonic()
        train(study, row, seed)
        found = read_result(study.run(row, seed), "metrics")
        told = ", ".join(
            f"{METRICS[name]} {found['all', name]:.1f} %" for name in list(METRICS)[:2]
        )
        took_s = time.monotonic() - started
        sys.stderr.write(
            f"[{number}/{len(order)}] {ROWS[row].title}, seed {seed}: {took_s:.0f} s; {told}\n"
        )


def train(study: Study, row: str, seed: int) -> None:
    """Train a row's model of a seed and ask it the benchmark."""
    run = study.run(row, seed)
    data = {"dataset": study.dataset, "parent": study.parent(seed)}
    checkpoint = {"checkpoint": run / "checkpoint"}
    steps = {"num_steps": study.num_steps, "num_epochs": study.num_steps, "data.seed": seed}
    settings = {"changes": {**ROWS[row].changes, **steps}, "num_ranks": 2}
    made = data | checkpoint | {"curves": run / "curves.csv"}
    step("train_parts", made, study.folder, settings, PARTS_FILE)
    asked = data | checkpoint | {"evaluation": run / "evaluation"}
    step("evaluate_parts", asked, study.folder, NO_PICTURES, PARTS_FILE)


def read_result(run: Path, *place: str) -> dict[tuple[str, str], float]:
    """Percents by subset and metric, at a place of an evaluation: `metrics`, `chance`, …"""
    found = read_json(run / "evaluation" / "evaluation.json")
    for name in place:
        found = found[name]
    return {
        (subset, metric): 100 * of_subset[metric]
        for subset, of_subset in found.items()
        for metric in METRICS
        if metric in of_subset
    }


def train_s(run: Path) -> float:
    """How long the steps of a training took."""
    with (run / "curves.csv").open(encoding="utf-8") as file:
        return sum(IMAGES_A_STEP / float(line["samples_per_s"]) for line in csv.DictReader(file))


def write_page(page: Path, study: Study, rows: list[str]) -> None:
    """Put the tables behind the marker; what stands before it is left alone."""
    lines = [*about(study, rows)]
    for subset in SUBSETS:
        lines += results_table(study, rows, subset)
    write_below(MARKER, page, "# Which captions does PA-CLIP learn from?", lines)


def about(study: Study, rows: list[str]) -> list[str]:
    """What the tables were made of."""
    data = read_json(study.dataset / "_receipt.json")["metrics"]
    numbers = read_json(study.run(rows[0], 0) / "evaluation" / "evaluation.json")["num_samples"]
    pools = " and ".join(
        f"{numbers[subset]['text_to_mask_r1']} parts of {title} in "
        f"{numbers[subset]['image_to_text_r1']} images"
        for subset, title in SUBSETS.items()
    )
    return [
        f"{data['regions_train']} regions of composed scenes to train on (parts and whole images); "
        f"{study.num_steps} steps of {IMAGES_A_STEP} images of the recipe `paclip_tiny` from "
        f"random weights; {study.num_seeds} seeds. Asked for {pools}.",
        "",
        "*In scene*: how often a part finds its long text among those of its scene. *Text → "
        "part*: how often a text finds its part first, or among the first ten, of all parts of "
        "the subset. *Image → text*, *text → image*: whole images and their long texts. Percent, "
        "mean ± standard deviation over seeds. *Time*: the steps, two ranks on two cores.",
        "",
    ]


def results_table(study: Study, rows: list[str], subset: str) -> list[str]:
    """Chance, the models before training, and a line a row, on one subset."""
    seeds = range(study.num_seeds)
    chance = read_result(study.run(rows[0], 0), "chance")
    lines = [["chance", *(f"{chance[subset, name]:.1f}" for name in METRICS), ""]]
    parents = [read_result(study.run(rows[0], seed), "baselines", "parent") for seed in seeds]
    lines.append(
        [UNTRAINED, *(spread([one[subset, name] for one in parents]) for name in METRICS), ""]
    )
    for row in rows:
        runs = [study.run(row, seed) for seed in seeds]
        found = [read_result(run, "metrics") for run in runs]
        cells = [spread([one[subset, name] for one in found]) for name in METRICS]
        lines.append([ROWS[row].title, *cells, f"{statistics.fmean(map(train_s, runs)):.0f} s"])
    return table([SUBSETS[subset], *METRICS.values(), "time"], lines)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
