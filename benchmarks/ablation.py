"""Does it learn, and does each loss help? Rows of the paper's Table 6, options, seeds, a table.

    make ablation                                   # hours on two cores; resumes after a kill
    python benchmarks/ablation.py --scenes 300 --seeds 1 --epochs 1 --rows cl   # a quick try

Makes a sample of composed scenes, one text tower and its embeddings, then trains the tiny model
anew for every row and seed, all on the same data for the same number of epochs, and evaluates it.
Everything is made by the pipeline's steps, so a rerun repeats nothing; the table goes to
docs/ablation.md.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).resolve().parents[1]
PIXCLIP = Path(sys.executable).parent / "pixclip"
POOL = 360  # regions that R@1 is told for, whatever the benchmark's size
STUDENT_T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # two-sided, by number of seeds
SUBSETS = {"seen_objects": "seen objects", "held_out_objects": "held-out objects"}
BASELINES = {"whole_image": "whole image", "masked_crop": "masked crop"}


@dataclass(frozen=True)
class Row:
    """A line of the table: what is changed of the full loss."""

    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)


NO_CROPS = {"losses.alpha": 0.0, "data.needs_crops": False}
ROWS = {
    "cl": Row("L_CL", {**NO_CROPS, "losses.beta": 0.0}),
    "cl_lg": Row("L_CL + L_LG", NO_CROPS),
    "cl_lg_fc": Row("L_CL + L_LG + L_FC"),
    "fc_region": Row("full, L_FC to the region's embedding", {"losses.fc_target": "region"}),
    "fc_positives": Row(
        "full, L_FC to the region's embedding, positives only",
        {"losses.fc_target": "region_positives"},
    ),
    "lg_text": Row("full, L_LG to the text", {"losses.lg_target": "text"}),
    "lg_stop": Row("full, L_LG stops the gradient", {"losses.lg_stop_gradient": True}),
    "tau_quarter": Row("full, τ = 0.25", {"losses.coverage_threshold": 0.25}),
    "long_only": Row("full, long captions only", {"data.long_caption_share": 1.0}),
    "one_region": Row("full, one region an image", {"data.regions_per_image": 1}),
}
Paths = Mapping[str, Path]


def main() -> None:
    """Make what is missing, then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="models trained at a time")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--table", type=Path, default=ROOT / "docs" / "ablation.md")
    arguments = parser.parse_args()
    folder = arguments.into.absolute()
    make_data(folder, arguments.scenes)
    runs = [(row, seed) for row in arguments.rows for seed in range(arguments.seeds)]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda run: train_and_evaluate(folder, *run, arguments.epochs), runs))
    results = {row: read_results(folder, row, arguments.seeds) for row in arguments.rows}
    arguments.table.write_text(page(results, arguments, folder))
    sys.stdout.write(f"{arguments.table}\n")


def make_data(folder: Path, num_scenes: int) -> None:
    """The sample, the text tower and the captions' embeddings."""
    overrides = {
        "sample_grit": {"num_scenes": num_scenes, "fault_share": 0.0},
        "publish": {"repository": str(folder / "repository")},
    }
    if not (folder / "longgrit" / "_receipt.json").exists():
        conf = json.dumps({"run_folder": str(folder), "overrides": overrides})
        laptop = [sys.executable, "-m", "components.runners.laptop", "run", "--conf", conf]
        subprocess.run(laptop, check=True, cwd=ROOT)
    longgrit, tower = folder / "longgrit", folder / "text_tower"
    step("adapt_text", {"longgrit": longgrit, "text_tower": tower}, folder)
    embeddings = folder / "text_embeddings"
    paths = {"longgrit": longgrit, "text_tower": tower, "text_embeddings": embeddings}
    step("embed_text", paths, folder)


def train_and_evaluate(folder: Path, row: str, seed: int, num_epochs: int) -> None:
    """Train the model of a row and seed, and ask it the benchmark."""
    run, started = folder / row / str(seed), time.perf_counter()
    parent = folder / "parents" / str(seed)
    data = {"longgrit": folder / "longgrit", "text_embeddings": folder / "text_embeddings"}
    # Two rows may want the same parent at the same time: the second waits for the first.
    step("init_model", {"text_tower": folder / "text_tower", "parent": parent}, folder, seed=seed)
    settings = {
        "stage": "refine",
        "changes": {**ROWS[row].changes, "num_epochs": num_epochs, "data.seed": seed},
    }
    trained = {"checkpoint": run / "checkpoint", "curves": run / "curves.csv"}
    step("train", {**data, "parent": parent, **trained}, folder, **settings)
    asked = {"checkpoint": run / "checkpoint", "evaluation": run / "evaluation"}
    pictures = {"num_examples": 0, "num_mistakes": 0, "num_maps": 0}
    step("evaluate", {**data, "parent": parent, **asked}, folder, **pictures)
    sys.stderr.write(f"{row}, seed {seed}: {time.perf_counter() - started:.0f} s\n")


def step(name: str, paths: Paths, folder: Path, **settings: Any) -> None:
    """Run a step of the pipeline on one core, unless its output is there."""
    place = "-".join(
        path.relative_to(folder).as_posix().replace("/", "_") for path in paths.values()
    )
    own = folder / "params" / f"{name}-{place}.yaml"
    own.parent.mkdir(parents=True, exist_ok=True)
    section = yaml.safe_load((ROOT / "params.yaml").read_text())[name] | settings
    own.write_text(yaml.safe_dump({name: section}))
    options = [text for key, path in paths.items() for text in (f"--{key.replace('_', '-')}", path)]
    threads = "2" if name in ("adapt_text", "embed_text") else "1"
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    subprocess.run(
        [PIXCLIP, name.replace("_", "-"), *options, "--params", own],
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": threads, "MLFLOW_TRACKING_URI": uri},
    )


@dataclass(frozen=True)
class Result:
    """What one model reached: metric by subset, its own and the baselines'."""

    model: Mapping[str, Mapping[str, float]]
    baselines: Mapping[str, Mapping[str, Mapping[str, float]]]
    train_s: float


def read_results(folder: Path, row: str, num_seeds: int) -> list[Result]:
    """The results of all seeds of a row."""
    return [read_result(folder / row / str(seed)) for seed in range(num_seeds)]


def read_result(run: Path) -> Result:
    """The evaluation of one model; R@1 is brought to a pool of fixed size."""
    evaluation = json.loads((run / "evaluation" / "evaluation.json").read_text())
    samples = pq.read_table(run / "evaluation" / "samples.parquet").to_pylist()
    metrics = {}
    for subset in SUBSETS:
        ranks = [s["text_to_mask_rank_in_subset"] for s in samples if s["subset"] == subset]
        metrics[subset] = {
            "scene_accuracy": evaluation["metrics"][subset]["scene_accuracy"],
            "text_to_mask_r1": evaluation["metrics"][subset]["text_to_mask_r1"],
            "pool_r1": statistics.fmean(first_in_pool(rank, len(ranks)) for rank in ranks),
        }
    seconds = [line.split(",") for line in (run / "curves.csv").read_text().splitlines()]
    column = seconds[0].index("seconds")
    total_s = sum(float(line[column]) for line in seconds[1:])
    return Result(metrics, evaluation["baselines"], total_s)


def first_in_pool(rank: int, num_candidates: int, pool: int = POOL) -> float:
    """Chance that the right candidate of this rank comes first in a random pool that holds it.

    None of the `rank - 1` better ones may be among the other `pool - 1` that are drawn.
    """
    others = min(pool, num_candidates) - 1
    worse = num_candidates - rank
    if worse < others:
        return 0.0
    return math.comb(worse, others) / math.comb(num_candidates - 1, others)


def page(results: Mapping[str, list[Result]], arguments: argparse.Namespace, folder: Path) -> str:
    """The table as Markdown, with what it was made of."""
    data = json.loads((folder / "longgrit" / "_receipt.json").read_text())["metrics"]
    asked = json.loads((folder / next(iter(results)) / "0/evaluation/evaluation.json").read_text())
    pools = ", ".join(
        f"{asked['num_samples'][subset]['text_to_mask_r1']} regions of {title}"
        for subset, title in SUBSETS.items()
    )
    lines = [
        "# Does it learn, and does each loss help?",
        "",
        f"Made by `make ablation`: the tiny model ({arguments.epochs} epochs from random weights) "
        f"on {data['regions_train']} regions of composed scenes, {arguments.seeds} seeds a row, "
        f"asked for {pools}. Backgrounds and compositions of the benchmark were never seen; of the "
        "held-out objects, not one was.",
        "",
        f"*In scene*: accuracy among a scene's regions. *R@1 of {POOL}*: how often a text finds "
        f"its region among {POOL}, expected over random pools. Values are means with 95 % "
        "intervals over seeds (Student's t). *Time* is that of the training steps on one core.",
        "",
        *table(results),
        "",
        "The baselines ask the same weights (the last row of the paper's three, if it is here) "
        "without the mask's convolution:",
        "",
        *baseline_table(results.get("cl_lg_fc", next(iter(results.values())))),
    ]
    return "\n".join(lines) + "\n"


def table(results: Mapping[str, list[Result]]) -> list[str]:
    """A line a row of the ablation."""
    titles = list(SUBSETS.values())
    head = [f"{name}, {title}" for title in titles for name in ("in scene", f"R@1 of {POOL}")]
    lines = [f"| | {' | '.join(head)} | time |", "|---" * (len(head) + 2) + "|"]
    for row, found in results.items():
        cells = [
            interval([result.model[subset][metric] for result in found])
            for subset in SUBSETS
            for metric in ("scene_accuracy", "pool_r1")
        ]
        minutes = statistics.fmean(result.train_s for result in found) / 60
        lines.append(f"| {ROWS[row].title} | {' | '.join(cells)} | {minutes:.1f} min |")
    return lines


def baseline_table(found: list[Result]) -> list[str]:
    """In-scene accuracy of the ways to show a region without the mask's convolution."""
    lines = [f"| | {' | '.join(SUBSETS.values())} |", "|---" * (len(SUBSETS) + 1) + "|"]
    for name, title in BASELINES.items():
        cells = [
            interval([result.baselines[name][subset]["scene_accuracy"] for result in found])
            for subset in SUBSETS
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def interval(values: list[float]) -> str:
    """Mean and half width of its 95 % interval, in percent."""
    mean = 100 * statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    deviation = 100 * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.1f} ± {STUDENT_T_95[len(values)] * deviation:.1f}"


if __name__ == "__main__":
    main()
