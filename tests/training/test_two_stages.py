"""PA-CLIP in two runs on two data sets: FineHARD, then FG-Part from where the first one ended."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from components.core.errors import InputError
from components.core.run import run_step
from components.core.step import load_step
from pixclip.checkpoint import load
from pixclip.checksums import weights_digest
from pixclip.data.loader import FgPart
from pixclip.text.clip_tokenizer import ClipTokenizer
from pixclip.training.paclip import PaClipObjective
from pixclip.training.recipes import PART_RECIPES, find_stage
from tests.data.pack.conftest import build_run
from tests.finehard_source import write_finehard

FIRST = {
    "num_steps": 4,
    "losses.hard": 0.5,
    "data.hard_negatives": 10,
    "data.batch_size": 4,
    "optimizer.warmup_steps": 1,
}
SECOND = {"num_steps": 2, "data.batch_size": 4, "data.seed": 1, "optimizer.warmup_steps": 1}


def step(name: str, inputs: dict[str, Path], outputs: dict[str, Path], **settings: Any) -> Any:
    return run_step(load_step(name), inputs, outputs, settings).metrics


def as_part(row: dict[str, Any], number: int) -> None:
    """The first region of a scene becomes the scene itself, as in FG-Part."""
    width, height = row["image_width_px"], row["image_height_px"]
    row["box_source"] = None
    if row["region_id"].endswith("-00"):
        from pixclip.masks import encode_box

        mask = encode_box((0, 0, width, height), height, width)
        row |= {"box_source": "image", "box_xyxy": [0.0, 0.0, width, height]}
        row |= {"mask_counts": mask.counts, "mask_area_px": width * height}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Both data sets, and the first stage."""
    folder = tmp_path_factory.mktemp("runs")
    annotations, images = write_finehard(folder / "source", 24, in_tars=True)
    made = {name: folder / "finehard-run" / name for name in ("captions", "images")}
    quarantine = folder / "finehard-run/quarantine/import_finehard.parquet"
    step(
        "import_finehard",
        {},
        {**made, "quarantine": quarantine},
        annotations=str(annotations),
        images=str(images),
    )
    step(
        "pack",
        {**made, "quarantines": quarantine.parent},
        {"longgrit": folder / "finehard"},
        dataset="finehard",
        source="finehard",
        benchmark_regions=12,
        benchmark_max_share=0.3,
    )
    parts = build_run(folder / "fgpart-run", num_images=24, change=as_part)
    step(
        "pack",
        parts.inputs,
        {"longgrit": folder / "fgpart"},
        dataset="fgpart",
        source="parts",
        benchmark_regions=12,
        benchmark_max_share=0.3,
    )
    begin(folder, "stage1", "finehard")
    train(folder, "stage1", "finehard", FIRST)
    return folder


def begin(
    folder: Path, stage: str, dataset: str, tokenizer: Path | str = "", **settings: Any
) -> Any:
    """A stage's tokenizer and the model that it begins with."""
    run = folder / stage
    step(
        "make_tokenizer",
        {"dataset": folder / dataset},
        {"text_tower": run / "tokenizer"},
        tokenizer=str(tokenizer),
        vocab_size=700,
    )
    return step(
        "init_model",
        {"text_tower": run / "tokenizer"},
        {"parent": run / "parent"},
        recipe="paclip_tiny",
        **settings,
    )


def train(folder: Path, stage: str, dataset: str, changes: dict[str, Any]) -> Any:
    run = folder / stage
    return step(
        "train_parts",
        {"dataset": folder / dataset, "parent": run / "parent"},
        {"checkpoint": run / "checkpoint", "curves": run / "curves.csv"},
        num_ranks=1,
        changes=changes,
        device="cpu",
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
    )


def curve(run: Path) -> list[dict[str, float]]:
    with (run / "curves.csv").open() as file:
        return [{k: float(v) for k, v in line.items()} for line in csv.DictReader(file)]


def test_the_first_stage_learns_from_finehards_wrong_captions(runs):
    losses = [line["loss_hard"] for line in curve(runs / "stage1")]
    assert len(losses) == 4
    assert losses[0] > losses[-1] > 0
    before, after = load(runs / "stage1/parent"), load(runs / "stage1/checkpoint")
    assert before.logit_scale.item() != after.logit_scale.item()


def test_the_second_stage_begins_where_the_first_one_ended(runs):
    """The same model embeds, and the first loss on FG-Part is the one that model has there."""
    first = runs / "stage1/checkpoint"
    metrics = begin(
        runs,
        "stage2",
        "fgpart",
        tokenizer=first / "text_tower",
        weights=str(first),
        format="checkpoint",
    )
    assert metrics["num_new"] == 0
    ended, begins = load(first), load(runs / "stage2/parent")
    assert weights_digest(first) == weights_digest(runs / "stage2/parent")
    texts = ["a red ball on the left", "a picture of a blue kite"]
    assert torch.equal(
        torch.as_tensor(ended.encode_text(texts)), torch.as_tensor(begins.encode_text(texts))
    )

    train(runs, "stage2", "fgpart", SECOND)
    stage = find_stage(PART_RECIPES, "paclip_tiny", "parts", SECOND)
    tokenizer = ClipTokenizer.open(first / "text_tower", ended.config.text)
    data = FgPart(runs / "fgpart", "train", ended.preprocess, tokenizer, stage.data)
    batch = next(iter(data.batches(epoch=0, device="cpu")))
    with torch.no_grad():
        losses = PaClipObjective(ended, stage.losses)(batch)
    told = curve(runs / "stage2")[0]
    for name in ("short", "long", "part"):
        assert told[f"loss_{name}"] == pytest.approx(losses[name].item(), abs=1e-5)

    notes = json.loads((runs / "stage2/checkpoint/notes.json").read_text())
    assert notes["trained_on"]["parent"] == weights_digest(first)


def test_a_tokenizer_learned_anew_from_the_second_data_set_is_refused(runs):
    """Its tokens would mean others than those that the text tower has learned."""
    with pytest.raises(InputError, match=r"(?s)text tower that it holds .*checkpoint/text_tower"):
        begin(
            runs,
            "mistaken",
            "fgpart",
            weights=str(runs / "stage1/checkpoint"),
            format="checkpoint",
        )
