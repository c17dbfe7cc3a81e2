"""A registered model through MLflow's own interface."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import pixclip
from components.registry import model_folder
from components.registry.models import Reference, Registry
from components.registry.pyfunc import RegionModel
from tests.model_registry import World


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
