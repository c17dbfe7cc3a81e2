"""What tests of the registry share: a database of their own, small checkpoints, evaluations.

A `conftest.py` takes the fixtures with `from tests.model_registry import …`.
"""

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.run import run_step
from components.core.step import load_step
from components.registry.models import Registry
from components.registry.store import open_client
from pixclip.evaluation.protocol import LONGGRIT_REGIONS

NUM_SCENES = 40  # of three regions each


FOLDER = tempfile.TemporaryDirectory(prefix="pixclip-mlflow-")  # goes with the process


@functools.cache
def empty_database() -> Path:
    """A database file with tables and nothing in them; making them takes seconds."""
    path = Path(FOLDER.name) / "mlflow.db"
    open_client(f"sqlite:///{path}")
    return path


@pytest.fixture
def tracking_uri(tmp_path: Path) -> str:
    """The address of a database of the test's own."""
    path = tmp_path / "tracking" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(empty_database(), path)
    return f"sqlite:///{path}"


@pytest.fixture
def registry(tracking_uri: str) -> Registry:
    """An empty registry."""
    return Registry(tracking_uri)


def write_checkpoint(folder: Path, seed: int) -> Path:
    """A checkpoint with random weights that `pixclip.load` opens; other seeds, other weights."""
    import torch

    from pixclip.checkpoint import save_checkpoint
    from pixclip.config import AdaptorConfig, ModelConfig, TextConfig, VisionConfig
    from pixclip.model import PixClip

    vision = VisionConfig(
        kind="clip",
        image_size_px=32,
        patch_size_px=16,
        width=16,
        num_layers=1,
        num_heads=2,
        mlp_width=32,
        embed_dim=8,
    )
    torch.manual_seed(seed)
    model = PixClip(
        ModelConfig(
            vision=vision, text=TextConfig(embed_dim=12), adaptor=AdaptorConfig(num_layers=1)
        )
    )
    save_checkpoint(folder, model)
    return folder


def write_evaluation(
    folder: Path,
    checkpoint: Path,
    right: Sequence[bool],
    dataset: str = "d" * 64,
    protocol: str = LONGGRIT_REGIONS.id,
    protocol_digest: str = LONGGRIT_REGIONS.digest,
    num_asked: int | None = None,
    revision: str = "v1",
) -> Path:
    """An evaluation in which these scenes' regions are right (`right[scene]`), the others wrong."""
    folder.mkdir(parents=True)
    answers = [is_right for is_right in right for _ in range(3)]
    share = sum(answers) / len(answers)
    numbers = {"scene_accuracy": share, "mask_to_text_r1": share, "text_to_mask_r1": share}
    weights = (checkpoint / "model.safetensors").read_bytes()
    content = {
        "protocol": protocol,
        "protocol_digest": protocol_digest,
        "checkpoint": hashlib.sha256(weights).hexdigest(),
        "data": {
            "dataset": dataset,
            "split": "benchmark",
            "num_regions": len(answers),
            "num_images": len(right),
            "version": {"revision": revision},
        },
        "metrics": {"all": numbers},
        "num_samples": {"all": dict.fromkeys(numbers, num_asked or len(answers))},
        "baselines": {"whole_image": {"all": {"scene_accuracy": 1 / 3}}},
    }
    (folder / "evaluation.json").write_text(json.dumps(content, sort_keys=True))
    pq.write_table(_samples(answers), folder / "samples.parquet")
    return folder


def _samples(answers: Sequence[bool]) -> pa.Table:
    ranks = [1 if is_right else 7 for is_right in answers]
    rank_columns = {
        f"{name}{ending}": ranks
        for name in ("mask_to_text_rank", "text_to_mask_rank")
        for ending in ("", "_in_subset")
    }
    return pa.table(
        {
            "region_id": [f"r{number:04}" for number in range(len(answers))],
            "image_id": [f"i{number // 3:04}" for number in range(len(answers))],
            "subset": ["seen_objects"] * len(answers),
            "scene_correct": list(answers),
            **rank_columns,
        }
    )


def some_right(num_right: int) -> list[bool]:
    """The first scenes right, the others wrong."""
    return [scene < num_right for scene in range(NUM_SCENES)]


class World:
    """A folder with checkpoints and evaluations, and the steps to run on them."""

    def __init__(self, folder: Path, tracking_uri: str) -> None:
        self.folder, self.tracking_uri = folder, tracking_uri
        self.settings = {"tracking_uri": tracking_uri}

    def checkpoint(self, name: str, num_right: int, **changes: Any) -> None:
        """A checkpoint of that name and its evaluation."""
        seed = int.from_bytes(name.encode()[:4])
        checkpoint = write_checkpoint(self.folder / name / "checkpoint", seed)
        write_evaluation(
            self.folder / name / "evaluation", checkpoint, some_right(num_right), **changes
        )

    def register(self, name: str, **settings: object) -> Path:
        """Register it; gives the folder `registration`."""
        folder = self.folder / name
        run_step(
            load_step("register"),
            {"checkpoint": folder / "checkpoint", "evaluation": folder / "evaluation"},
            {"registration": folder / "registration"},
            {**self.settings, "git_commit": "abc", **settings},
        )
        return folder / "registration"

    def candidate(self, name: str, num_right: int, **changes: Any) -> Path:
        """A registered checkpoint of that quality; gives the folder `registration`."""
        self.checkpoint(name, num_right, **changes)
        return self.register(name)


@pytest.fixture
def world(tmp_path: Path, tracking_uri: str) -> World:
    """An empty world with a registry of its own."""
    return World(tmp_path, tracking_uri)
