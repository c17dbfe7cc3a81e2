"""A registered model through MLflow's own interface."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import pixclip
from components.registry import model_folder
from components.registry.models import Reference, Registry
from components.registry.pyfunc import RegionModel, _load_pyfunc
from pixclip.checkpoint import save_checkpoint
from pixclip.data.shards import iterate_images
from pixclip.evaluation.part_variants import PartVariants
from pixclip.evaluation.results import MODEL
from tests.model_registry import World
from tests.pixclip.data.part_world import write_fgpart
from tests.pixclip.tiny_models import save_clip_tokenizer, tiny_clip


def picture() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


BOX = [5, 5, 30, 30]
POLYGONS = [[0, 0, 20, 0, 20, 20], [30, 10, 50, 10, 50, 30]]


def load_candidate(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A new candidate as `mlflow.pyfunc.load_model` gives it."""
    import mlflow

    world.candidate("a", num_right=30)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", world.tracking_uri)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return mlflow.pyfunc.load_model("models:/pixclip@candidate")


@pytest.fixture
def served(world: World, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Any:
    return load_candidate(world, monkeypatch)


def test_a_registered_model_embeds_as_pixclip_does(served: Any, world: World) -> None:
    rows = pd.DataFrame(
        {"image": [picture()] * 3, "mask": [json.dumps(BOX), json.dumps(POLYGONS), ""]}
    )
    answer = served.predict(rows)
    model = pixclip.load(world.folder / "a" / "checkpoint")
    wanted = model.encode_image([picture()] * 3, [BOX, [POLYGONS], None]).numpy()
    np.testing.assert_allclose(np.stack(answer["image_embedding"]), wanted, atol=1e-6)
    assert answer["similarity"].isna().all()


def test_a_model_that_was_registered_before_its_loader_moved_still_loads(
    world: World, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "LOADER", "components.tracking.pyfunc")
    served = load_candidate(world, monkeypatch)
    assert served.metadata.flavors["python_function"]["loader_module"] == model_folder.LOADER
    assert len(served.predict(pd.DataFrame({"image": [picture()]}))) == 1


def test_the_signature_says_what_goes_in_and_what_comes_out(served: Any) -> None:
    signature = served.metadata.signature.to_dict()
    inputs = {column["name"]: column["type"] for column in json.loads(signature["inputs"])}
    assert inputs == {"image": "binary", "mask": "string", "text": "string"}
    outputs = [column["name"] for column in json.loads(signature["outputs"])]
    assert outputs == ["image_embedding", "text_embedding", "similarity"]


def test_the_artifact_holds_neither_code_nor_pickle(world: World, registry: Registry) -> None:
    world.candidate("a", num_right=30)
    folder = world.folder / "got"
    folder.mkdir()
    registry.download(registry.get(Reference("pixclip", "candidate")), folder)
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ".md", ".txt", ".yaml", ".parquet", ""}


class FakeEncoder:
    """Unit vectors: every image points along the first axis, texts by their first letter."""

    def encode_image(self, images: list[Any], masks: list[Any] | None = None) -> Any:
        return np.tile([1.0, 0.0], (len(images), 1))

    def encode_text(self, texts: list[str]) -> Any:
        return np.array([[1.0, 0.0] if text.startswith("a") else [0.0, 1.0] for text in texts])


def test_rows_may_lack_image_or_text() -> None:
    rows = pd.DataFrame(
        {
            "image": [b"x", None, b"x", None],
            "text": ["a dog", "a cat", None, "b"],
        },
        index=[7, 8, 9, 10],
    )
    answer = RegionModel(FakeEncoder()).predict(rows)
    assert list(answer.index) == [7, 8, 9, 10]
    assert answer["similarity"].tolist()[0] == 1.0
    assert answer["similarity"].isna().tolist() == [False, True, True, True]
    assert [cell is None for cell in answer["image_embedding"]] == [False, True, False, True]
    assert answer["text_embedding"].tolist()[3] == [0.0, 1.0]


def test_a_mask_that_is_no_json_names_its_row() -> None:
    rows = pd.DataFrame({"image": [b"x", b"x"], "mask": ["", "[1, 2"]})
    with pytest.raises(ValueError, match="row 1: the mask is no JSON"):
        RegionModel(FakeEncoder()).predict(rows)


def test_a_path_in_place_of_an_image_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture())
    rows = pd.DataFrame({"image": [str(tmp_path / "secret.png")], "text": ["a"]})
    assert RegionModel(FakeEncoder()).predict(rows)["image_embedding"].tolist() == [None]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model of parts, and images with parts."""
    folder = tmp_path_factory.mktemp("parts")
    write_fgpart(folder / "dataset", split="benchmark")
    tokenizer = save_clip_tokenizer(folder / "tokenizer")
    model = tiny_clip(context_length=64)
    torch.nn.init.zeros_(model.vision.mask_embed.weight)  # as PA-CLIP leaves it
    save_checkpoint(folder / "checkpoint", model, text_tower=tokenizer)
    return folder


def test_a_model_of_parts_embeds_a_part_as_its_evaluation_does(parts: Path) -> None:
    model = pixclip.load(parts / "checkpoint")
    variants = PartVariants(model, model)
    samples = [variants.asked_of(one) for one in iterate_images(parts / "dataset", "benchmark")]
    wanted = variants.embed(variants.prepare(samples))[MODEL]
    regions = [(sample, region) for sample in samples for region in sample.regions]
    boxes = [json.dumps(list(region.box_xyxy)) for _, region in regions]
    masks = [
        json.dumps({"size": [r.mask.height_px, r.mask.width_px], "counts": r.mask.counts})
        for _, r in regions
    ]
    served = _load_pyfunc(str(parts / "checkpoint"))
    for regions_of in (boxes, masks):
        rows = pd.DataFrame({"image": [s.jpeg for s, _ in regions], "mask": regions_of})
        found = np.stack(served.predict(rows)["image_embedding"])
        np.testing.assert_allclose(found, wanted.regions_RD.numpy(), atol=1e-5)
    whole = served.predict(pd.DataFrame({"image": [samples[0].jpeg], "mask": [""]}))
    assert wanted.images_UD is not None
    np.testing.assert_allclose(whole["image_embedding"][0], wanted.images_UD[0], atol=1e-5)


def test_a_clip_that_learnt_masks_gets_them(parts: Path) -> None:
    model, folder = tiny_clip(context_length=64), parts / "alpha"
    assert model.reads_masks
    save_checkpoint(folder, model, text_tower=parts / "tokenizer")
    rows = pd.DataFrame({"image": [picture()], "mask": [json.dumps(BOX)]})
    found = _load_pyfunc(str(folder)).predict(rows)["image_embedding"][0]
    np.testing.assert_allclose(found, model.encode_image(picture(), BOX)[0].numpy(), atol=1e-5)


def test_a_part_outside_of_its_image_names_its_row(parts: Path) -> None:
    rows = pd.DataFrame({"image": [picture()] * 2, "mask": ["", "[90, 90, 99, 99]"]})
    with pytest.raises(ValueError, match=r"row 1: .*covers no pixel"):
        _load_pyfunc(str(parts / "checkpoint")).predict(rows)
