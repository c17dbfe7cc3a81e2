"""Does it learn, and does each loss help? Rows of the paper's Table 6, options, seeds, a table.

    make ablation                  # about two and a half hours on two cores; resumes after a kill
    python benchmarks/ablation.py --scenes 300 --seeds 2 --align-epochs 1 --rows cl cl_lg  # a try

Makes a sample of composed scenes, one text tower and its embeddings. Then, as the recipe `tiny`
does, a model of each seed learns from random weights by L_CL alone (stage `align`), and goes on
from there once for each row of the table (stage `refine`): rows of a seed share model and data,
so they are compared pair by pair. Everything is made by the pipeline's steps and a rerun repeats
nothing. The table replaces what follows the marker in docs/ablation.md.
"""

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

import pixclip
from components.core.settings import merge
from pixclip.checkpoint import save_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PIXCLIP = Path(sys.executable).parent / "pixclip"
MARKER = "<!-- The rest of this page is written by benchmarks/ablation.py. -->"
POOL = 360  # regions that R@1 is told for, whatever the benchmark's size
STUDENT_T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # two-sided, by number of seeds
SUBSETS = {"seen_objects": "seen objects", "held_out_objects": "held-out objects"}
METRICS = {
    "scene_accuracy": "in scene",
    "pool_r1": f"R@1 of {POOL}",
    "short_pool_r1": f"R@1 of {POOL}, short texts",
    "image_r1": "whole images",
}
BASELINES = {
    "masked_crop": "masked crop",
    "whole_image": "whole image",
    "mask_conv_only": "mask convolution only",
}
TEXT = {  # not adapted: docs/text-tower.md tells what a tiny vision tower learns from which texts
    "num_layers": 4,
    "masked_tokens": {"num_steps": 0},
    "contrast": {"num_steps": 0},
    "whiten": {"share": 0.5, "num_captions": 8192},
}
NO_PICTURES = {"num_examples": 0, "num_mistakes": 0, "num_maps": 0}

# Larger than the recipe's, which are for the few regions of the demo.
BATCH_SIZE = 64
ALIGN = {"data.batch_size": BATCH_SIZE}
REFINE = {
    **ALIGN,
    "optimizer.mask_lr": 3e-4,
    "optimizer.rest_lr": 3e-4,
    "optimizer.warmup_steps": 20,
}


@dataclass(frozen=True)
class Row:
    """A line of the table: what is changed of the stage `refine`, and which line it is held to."""

    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    against: str = "cl_lg_fc"
    crop_margin: float = 0.0


NO_CROPS = {"losses.alpha": 0.0, "data.needs_crops": False}
ROWS = {
    "cl": Row("L_CL", {**NO_CROPS, "losses.beta": 0.0}, against="cl"),
    "cl_lg": Row("L_CL + L_LG", NO_CROPS, against="cl"),
    "cl_lg_fc": Row("L_CL + L_LG + L_FC (all)", against="cl"),
    "fc_region": Row("all, L_FC to the region's embedding", {"losses.fc_target": "region"}),
    "fc_positives": Row(
        "all, L_FC to the region's embedding, positives only",
        {"losses.fc_target": "region_positives"},
    ),
    "lg_text": Row("all, L_LG to the text", {"losses.lg_target": "text"}),
    "lg_stop": Row("all, L_LG stops the gradient", {"losses.lg_stop_gradient": True}),
    "tau_quarter": Row("all, τ = 0.25", {"losses.coverage_threshold": 0.25}),
    "crop_margin": Row("all, crops with a margin of 0.25", crop_margin=0.25),
    "long_only": Row("all, long captions only", {"data.long_caption_share": 1.0}),
    "one_region": Row("all, one region an image", {"data.regions_per_image": 1}),
}


@dataclass(frozen=True)
class Study:
    """Where everything is, and how long models learn."""

    folder: Path
    num_seeds: int
    align_epochs: int
    refine_steps: int

    def aligned(self, seed: int) -> Path:
        """The run of stage `align`."""
        return self.folder / "align" / str(seed)

    def refined(self, row: str, seed: int) -> Path:
        """The run of stage `refine`."""
        return self.folder / row / str(seed)


def main() -> None:
    """Make what is missing, then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--align-epochs", type=int, default=12)
    parser.add_argument("--refine-steps", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="models trained at a time")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "ablation.md")
    arguments = parser.parse_args()
    folder, seeds = arguments.into.absolute(), arguments.seeds
    study = Study(folder, seeds, arguments.align_epochs, arguments.refine_steps)
    make_data(study.folder, arguments.scenes)
    train_all(study, arguments.rows, arguments.jobs)
    write_page(arguments.page, study, arguments.rows)
    sys.stdout.write(f"{arguments.page}\n")


def make_data(folder: Path, num_scenes: int) -> None:
    """The sample, the text tower and the captions' embeddings."""
    build("longgrit", folder, num_scenes)
    dataset, tower = folder / "longgrit", folder / "text_tower"
    step("adapt_text", {"dataset": dataset, "text_tower": tower}, folder, TEXT)
    embeddings = folder / "text_embeddings"
    paths = {"dataset": dataset, "text_tower": tower, "text_embeddings": embeddings}
    step("embed_text", paths, folder)


def build(name: str, folder: Path, num_scenes: int) -> None:
    """The data set of this name, made of composed scenes without faults, if it is not there."""
    overrides = {
        "sample_grit": {"num_scenes": num_scenes, "fault_share": 0.0, "seed": 0},
        "publish": {"repository": str(folder / "repository")},
    }
    if not (folder / name / "_receipt.json").exists():
        conf = json.dumps({"run_folder": str(folder), "overrides": overrides})
        laptop = [sys.executable, "-m", "components.orchestration.laptop", "run"]
        dag = ["--dag", f"{name}_build", "--conf", conf]
        subprocess.run([*laptop, *dag], check=True, cwd=ROOT)


def train_all(study: Study, rows: list[str], num_jobs: int) -> None:
    """Train and ask all models, some at a time; a row's wait for the model they go on from."""
    with ThreadPoolExecutor(num_jobs) as pool:
        aligned = {seed: pool.submit(align, study, seed) for seed in range(study.num_seeds)}

        def go_on(row: str, seed: int) -> None:
            aligned[seed].result()
            refine(study, row, seed)

        table_6 = [row for row in rows if ROWS[row].against == "cl"]
        options = [row for row in rows if ROWS[row].against != "cl"]
        order = [(row, seed) for part in (table_6, options) for seed in aligned for row in part]
        for future in [pool.submit(go_on, row, seed) for row, seed in order]:
            future.result()


def align(study: Study, seed: int) -> None:
    """Train the model of a seed that all rows go on from."""
    run = study.aligned(seed)
    made = {"text_tower": study.folder / "text_tower", "parent": run / "parent"}
    step("init_model", made, study.folder, {"seed": seed})
    changes = {**ALIGN, "num_epochs": study.align_epochs, "data.seed": seed}
    train(study, run / "parent", run, {"stage": "align", "changes": changes})
    evaluate(study, run, seed)


def refine(study: Study, name: str, seed: int) -> None:
    """Train a row's model and ask it the benchmark."""
    row, run = ROWS[name], study.refined(name, seed)
    own = {**REFINE, "num_steps": study.refine_steps, "data.seed": 1000 + seed}
    parent = study.aligned(seed) / "checkpoint"
    if row.crop_margin:
        parent = with_margin(parent, run / "parent", row.crop_margin)
    train(study, parent, run, {"stage": "refine", "changes": {**row.changes, **own}})
    evaluate(study, run, seed)


def with_margin(checkpoint: Path, parent: Path, crop_margin: float) -> Path:
    """The checkpoint with room around its crops, which `align` does not look at.

    It is written every time, and is the same bytes if the checkpoint is: only then nothing that
    follows is repeated.
    """
    model = pixclip.load(checkpoint)
    preprocess = model.config.preprocess.changed(crop_margin=crop_margin)
    model.config = model.config.changed(preprocess=preprocess)
    save_checkpoint(parent, model, text_tower=checkpoint / "text_tower")
    return parent


def train(study: Study, parent: Path, run: Path, settings: Mapping[str, Any]) -> None:
    """Train a stage on one core."""
    made = {"parent": parent, "checkpoint": run / "checkpoint", "curves": run / "curves.csv"}
    step("train", data_of(study) | made, study.folder, {**settings, "num_ranks": 1})


def evaluate(study: Study, run: Path, seed: int) -> None:
    """Ask a model the benchmark; the tower without training is the one before `align`."""
    parent = study.aligned(seed) / "parent"
    asked = {"parent": parent, "checkpoint": run / "checkpoint", "evaluation": run / "evaluation"}
    step("evaluate", data_of(study) | asked, study.folder, NO_PICTURES)


def data_of(study: Study) -> dict[str, Path]:
    """The inputs of every training and evaluation."""
    names = {"dataset": "longgrit", "text_embeddings": "text_embeddings"}
    return {name: study.folder / place for name, place in names.items()}


def step(
    name: str,
    paths: Mapping[str, Path],
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    params_file: str = "pixclip.yaml",
) -> None:
    """Run a step of a pipeline, unless its output is there; only texts take more than a core."""
    outputs = "-".join(path.relative_to(folder).as_posix() for path in paths.values())
    own = folder / "params" / f"{name}-{outputs.replace('/', '_')}.yaml"
    own.parent.mkdir(parents=True, exist_ok=True)
    params = yaml.safe_load((ROOT / "params" / params_file).read_text(encoding="utf-8"))
    section = merge(params[name], settings or {})
    own.write_text(yaml.safe_dump({name: section}), encoding="utf-8")
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
    """What one model reached: metric by subset, its own and the baselines', in percent."""

    metrics: Mapping[tuple[str, str], float]
    baselines: Mapping[tuple[str, str], float]
    train_s: float


def read_result(run: Path) -> Result:
    """The evaluation of one model; R@1 is brought to a pool of fixed size."""
    evaluation = read_json(run / "evaluation" / "evaluation.json")
    samples = pq.read_table(run / "evaluation" / "samples.parquet").to_pylist()
    metrics = {}
    for subset in SUBSETS:
        of_subset = evaluation["metrics"][subset]
        images_r1 = of_subset["image_to_text_r1"], of_subset["text_to_image_r1"]
        metrics[subset, "scene_accuracy"] = 100 * of_subset["scene_accuracy"]
        for texts in ("", "short_"):
            column = f"{texts}text_to_mask_rank_in_subset"
            ranks = [sample[column] for sample in samples if sample["subset"] == subset]
            found = statistics.fmean(first_in_pool(rank, len(ranks)) for rank in ranks)
            metrics[subset, f"{texts}pool_r1"] = 100 * found
        metrics[subset, "image_r1"] = 100 * statistics.fmean(images_r1)
    baselines = {
        (name, subset): 100 * evaluation["baselines"][name][subset]["scene_accuracy"]
        for name in BASELINES
        for subset in SUBSETS
    }
    with (run / "curves.csv").open(encoding="utf-8") as file:
        train_s = sum(BATCH_SIZE / float(line["samples_per_s"]) for line in csv.DictReader(file))
    return Result(metrics, baselines, train_s)


def read_json(path: Path) -> Any:
    """The content of a file that a step wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def first_in_pool(rank: int, num_candidates: int, pool: int = POOL) -> float:
    """Chance that the right candidate of this rank comes first in a random pool that holds it.

    None of the `rank - 1` better ones may be among the other `pool - 1` that are drawn.
    """
    others = min(pool, num_candidates) - 1
    worse = num_candidates - rank
    if worse < others:
        return 0.0
    return math.comb(worse, others) / math.comb(num_candidates - 1, others)


def write_page(page: Path, study: Study, rows: list[str]) -> None:
    """Put the tables behind the marker; what stands before it is left alone."""
    seeds = range(study.num_seeds)
    aligned = [read_result(study.aligned(seed)) for seed in seeds]
    results = {row: [read_result(study.refined(row, seed)) for seed in seeds] for row in rows}
    lines = [
        *about(study),
        "",
        *(line for subset in SUBSETS for line in results_table(subset, aligned, results)),
        "## Differences",
        "",
        "Of the models of the same seed, in points: the rows of Table 6 against L_CL alone, the "
        "options against all three losses. **Bold**: the interval leaves out zero; of so many "
        "intervals of 95 %, some do by chance.",
        "",
        *(line for subset in SUBSETS for line in differences_table(subset, results)),
        "## Other ways to show a region",
        "",
        "In-scene accuracy of the same weights where the mask is not given to its convolution, and "
        "of the weights before `align` where nothing but that convolution is taken from after it:",
        "",
        *baselines_table(aligned, results),
    ]
    write_below(MARKER, page, "# Does it learn, and does each loss help?", lines)


def write_below(marker: str, page: Path, title: str, lines: list[str]) -> None:
    """Put lines behind the marker of a page; a new page has the title before it."""
    kept = page.read_text(encoding="utf-8").split(marker)[0] if page.exists() else f"{title}\n\n"
    page.write_text(kept + "\n".join([marker, "", *lines]), encoding="utf-8")


def about(study: Study) -> list[str]:
    """What the tables were made of."""
    data = read_json(study.folder / "longgrit" / "_receipt.json")["metrics"]
    numbers = read_json(study.aligned(0) / "evaluation" / "evaluation.json")["num_samples"]
    pools = " and ".join(
        f"{numbers[subset]['text_to_mask_r1']} regions of {title} in "
        f"{numbers[subset]['image_to_text_r1']} images"
        for subset, title in SUBSETS.items()
    )
    return [
        f"{data['regions_train']} regions of composed scenes to train on; {study.align_epochs} "
        f"epochs of `align` from random weights, then {study.refine_steps} steps of `refine` with "
        f"the losses of the row; {study.num_seeds} seeds. Asked for {pools}: backgrounds and "
        "compositions that were never seen, and of the held-out objects not one.",
        "",
        f"*In scene*: accuracy among the regions of a scene (chance 33 %). *R@1 of {POOL}*: how "
        f"often a text (long, if nothing is said) finds its region among {POOL}, expected over "
        f"random pools (chance {100 / POOL:.2f} %). *Whole images*: R@1 of images and their "
        "captions, the mean of both directions, among all images of the subset. Percent, mean ± "
        "half of the 95 % interval over seeds (Student's t). *Time*: the stage's steps on one "
        "core.",
    ]


def results_table(
    subset: str, aligned: list[Result], results: Mapping[str, list[Result]]
) -> list[str]:
    """A line a row of the ablation, on one subset."""
    lines = []
    for title, found in titled(aligned, results).items():
        cells = [interval([one.metrics[subset, metric] for one in found]) for metric in METRICS]
        minutes = statistics.fmean(result.train_s for result in found) / 60
        lines.append([title, *cells, f"{minutes:.1f} min"])
    return table([SUBSETS[subset], *METRICS.values(), "time"], lines)


def differences_table(subset: str, results: Mapping[str, list[Result]]) -> list[str]:
    """A line for every row that is held to another one, on one subset."""
    lines = []
    for row, found in results.items():
        other = ROWS[row].against
        if other == row or other not in results:
            continue
        cells = []
        for key in ((subset, metric) for metric in METRICS):
            pairs = zip(found, results[other], strict=True)
            cells.append(interval([own.metrics[key] - its.metrics[key] for own, its in pairs], "+"))
        lines.append([f"{ROWS[row].title} − {ROWS[other].title}", *cells])
    return table([SUBSETS[subset], *METRICS.values()], lines)


def baselines_table(aligned: list[Result], results: Mapping[str, list[Result]]) -> list[str]:
    """In-scene accuracy of the other ways to show a region, for each row."""
    keys = [(name, subset) for name in BASELINES for subset in SUBSETS]
    lines = [
        [title, *(interval([result.baselines[key] for result in found]) for key in keys)]
        for title, found in titled(aligned, results).items()
    ]
    return table(["", *(f"{BASELINES[name]}, {SUBSETS[subset]}" for name, subset in keys)], lines)


def table(head: list[str], lines: list[list[str]]) -> list[str]:
    """The lines of a Markdown table, and an empty one behind it."""
    rule = ["---"] * len(head)
    return [*(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines)), ""]


def titled(aligned: list[Result], results: Mapping[str, list[Result]]) -> dict[str, list[Result]]:
    """The models of each line of a table, by its title."""
    return {"after `align`": aligned} | {ROWS[row].title: found for row, found in results.items()}


def interval(values: list[float], sign: str = "") -> str:
    """Mean and half width of its 95 % interval; a signed one in bold if it leaves out zero."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:{sign}.1f}"
    half = STUDENT_T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    text = f"{mean:{sign}.1f} ± {half:.1f}"
    return f"**{text}**" if sign and abs(mean) > half else text


if __name__ == "__main__":
    main()
