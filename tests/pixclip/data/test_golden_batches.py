"""Batches are bit for bit what they were: pixels that change would change training curves."""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import fields, replace

import pytest
import torch
from PIL import Image

from pixclip.config import PreprocessConfig
from pixclip.data.batch import Batch
from pixclip.data.config import DataConfig
from pixclip.data.loader import LongGrit
from pixclip.preprocess import Preprocess
from tests.pixclip.data.world import HashVectors, Scene, draw_scene, write_longgrit

SIZES = [(60, 44), (301, 203), (130, 517), (640, 480), (607, 515), (33, 900)]
# How a picture is written again: what web images come as.
FORMS = [
    {"format": "JPEG", "quality": 92},
    {"format": "JPEG", "quality": 80, "subsampling": 0},
    {"format": "JPEG", "quality": 60, "subsampling": 1, "progressive": True},
    {"format": "JPEG", "mode": "L", "quality": 85},
    {"format": "JPEG", "mode": "CMYK", "quality": 85},
    {"format": "PNG"},
]
SCENES_DIGEST = "8b2af0774519de9a435accbb0b38c22b5d1f74ee97ca1b113dd82f9564d7e813"
CASES = {
    "as inference": (32, 8, 0.0, DataConfig(batch_size=9)),
    "margins": (64, 16, 0.1, DataConfig(batch_size=10, regions_per_image=3, seed=3)),
    "without crops": (
        48,
        16,
        0.0,
        DataConfig(batch_size=7, needs_crops=False, full_image_share=0.3, seed=1),
    ),
}
DIGESTS = {
    "as inference": "82a13d45c221a9c92f684dfe1a47f7a10508487a76c38b7a0e04e01244afaccb",
    "margins": "6b17f277d5c8317dc6127a0dcca8872c5caba57898d613e1bf73bfea73413a64",
    "without crops": "d8ee4330ce6ef9006d95478220bac38a8474cb6e6e376412ab7c57ab9442559f",
}


def golden_scenes() -> list[Scene]:
    """Thirty-six scenes: six sizes in six forms, of one to four regions."""
    return [
        rewritten(draw_scene(6 * i + k, 1 + (i + k) % 4, size), **form)
        for i, size in enumerate(SIZES)
        for k, form in enumerate(FORMS)
    ]


def rewritten(scene: Scene, mode: str = "RGB", **form) -> Scene:
    """The scene in another format; one of seven holds metadata that turns nothing."""
    target = io.BytesIO()
    image = Image.open(io.BytesIO(scene.jpeg)).convert(mode)
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    image.save(target, exif=exif if len(scene.jpeg) % 7 == 0 else b"", **form)
    key = hashlib.sha256(target.getvalue()).hexdigest()
    rows = [row | {"image_sha256": key} for row in scene.rows]
    return replace(scene, jpeg=target.getvalue(), rows=rows)


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of byte strings, one after the other."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def bytes_of(batch: Batch) -> Iterable[bytes]:
    """All that a batch holds, but for what it need not have and was not asked for."""
    for field in fields(batch):
        value = getattr(batch, field.name)
        if value is None and field.default is None:
            continue
        if isinstance(value, torch.Tensor):
            yield f"{field.name} {value.dtype} {list(value.shape)}".encode()
            yield value.numpy().tobytes()
        else:
            yield repr(value).encode()


@pytest.fixture(scope="module")
def golden_longgrit(tmp_path_factory):
    scenes = golden_scenes()
    if digest(scene.jpeg for scene in scenes) != SCENES_DIGEST:
        pytest.skip("this Pillow writes other bytes")
    return write_longgrit(tmp_path_factory.mktemp("golden"), scenes, per_shard=7)


@pytest.mark.skipif(
    "AVX" not in torch.backends.cpu.get_cpu_capability(),
    reason="torch resizes by other arithmetic on this machine",
)
@pytest.mark.parametrize("case", CASES)
def test_batches_are_those_that_models_were_trained_on(golden_longgrit, case):
    size_px, patch_px, margin, config = CASES[case]
    preprocess = Preprocess(size_px, PreprocessConfig(crop_margin=margin))
    data = LongGrit(golden_longgrit, "train", preprocess, patch_px, HashVectors(), config)
    batches = [*data.batches(epoch=0), *data.batches(epoch=1, start_step=1)]
    assert digest(part for batch in batches for part in bytes_of(batch)) == DIGESTS[case]
