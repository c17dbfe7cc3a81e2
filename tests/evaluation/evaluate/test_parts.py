"""The step that measures retrieval of parts."""

import json

import pytest
import torch
from PIL import Image

import pixclip
from components.core.errors import InputError
from components.evaluation.evaluate.parts import evaluate_parts
from components.evaluation.evaluate.settings import EvaluateSettings
from pixclip.checkpoint import save_checkpoint
from pixclip.data.shards import iterate_images
from pixclip.evaluation.part_variants import PartVariants
from pixclip.evaluation.protocol import FGPART_PARTS
from tests.pixclip.data.part_world import write_fgpart
from tests.pixclip.tiny_models import (
    save_clip_tokenizer,
    save_tiny_text_tower,
    tiny_clip,
    tiny_model,
)

SETTINGS = EvaluateSettings(
    num_resamples=100, num_examples=2, num_mistakes=2, num_maps=1, device="cpu"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    write_fgpart(folder / "dataset", split="benchmark")
    tokenizer = save_clip_tokenizer(folder / "tokenizer")
    save_checkpoint(folder / "parent", tiny_clip(context_length=64), text_tower=tokenizer)
    model = tiny_clip(context_length=64)
    with torch.no_grad():
        model.vision.projection.weight.mul_(-0.5).add_(0.1)
    save_checkpoint(folder / "checkpoint", model, text_tower=tokenizer)
    return folder


@pytest.fixture(scope="module")
def evaluation(folder):
    metrics = evaluate_parts.function(
        dataset=folder / "dataset",
        parent=folder / "parent",
        checkpoint=folder / "checkpoint",
        evaluation=folder / "evaluation",
        settings=SETTINGS,
    )
    return metrics, json.loads((folder / "evaluation" / "evaluation.json").read_text())


def test_parts_are_asked_about_and_whole_images_are_not(evaluation):
    metrics, content = evaluation
    assert metrics["num_regions"] == 14
    assert metrics["num_images"] == 6
    assert content["protocol_digest"] == FGPART_PARTS.digest


def test_the_model_stands_beside_the_whole_image_and_its_parent(evaluation):
    _, content = evaluation
    assert {"whole_image", "parent"} == set(content["baseline_intervals"])
    assert {"scene_accuracy", "mask_to_text_r1", "text_to_image_r1"} <= set(
        content["metrics"]["all"]
    )


def test_the_page_shows_crops_and_says_what_was_asked(folder, evaluation):
    page = (folder / "evaluation" / "evaluation.html").read_text()
    assert "the part&#39;s box in whole pixels" in page
    assert "<img" in page


def test_the_page_tells_of_the_variants_that_are_there(folder, evaluation):
    page = (folder / "evaluation" / "evaluation.html").read_text()
    assert "Whole image: no mask" in page
    assert "Parent: the same crops in the model that training began with" in page
    assert "Mask conv only" not in page
    assert "with the mask<" not in page


def test_the_maps_show_the_crop_that_the_model_is_given(folder, evaluation):
    pictures = folder / "evaluation" / "pictures"
    (whole,) = pictures.glob("map-*-attention-whole.jpg")
    with Image.open(whole) as image, Image.open(str(whole).replace("whole", "region")) as crop:
        sizes = image.size, crop.size
    number = int(whole.name.split("-")[1])
    samples = list(iterate_images(folder / "dataset", "benchmark"))
    parts = [(s, r) for s in samples for r in s.regions if r.box_source != "image"]
    sample, part = parts[number]
    x1, y1, x2, y2 = part.box_xyxy
    assert sizes == ((sample.width_px, sample.height_px), (x2 - x1, y2 - y1))


def test_a_part_is_embedded_as_encode_image_embeds_its_crop(folder):
    model = pixclip.load(folder / "checkpoint")
    variants = PartVariants(model, pixclip.load(folder / "parent"))
    sample = next(s for s in iterate_images(folder / "dataset", "benchmark") if len(s.regions) > 2)
    asked = variants.asked_of(sample)
    found = variants.embed(variants.prepare([asked]))
    crops = [sample.image().crop(region.box_xyxy) for region in asked.regions]
    torch.testing.assert_close(found["model"].regions_RD, model.encode_image(crops))
    torch.testing.assert_close(found["model"].images_UD, model.encode_image(sample.image()))
    assert asked.caption == sample.long_caption


def test_a_model_that_reads_texts_by_a_language_model_is_refused(folder, tmp_path):
    tower = save_tiny_text_tower(tmp_path / "tower")
    save_checkpoint(tmp_path / "checkpoint", tiny_model(), text_tower=tower)
    with pytest.raises(InputError, match="`pixclip evaluate` measures such models"):
        evaluate_parts.function(
            dataset=folder / "dataset",
            parent=folder / "parent",
            checkpoint=tmp_path / "checkpoint",
            evaluation=tmp_path / "evaluation",
            settings=SETTINGS,
        )


def test_the_parent_is_asked_by_its_own_texts(folder, tmp_path):
    model = tiny_clip(context_length=64)
    with torch.no_grad():
        model.text.projection.weight.mul_(-1.0)
    save_checkpoint(tmp_path / "other", model, text_tower=folder / "tokenizer")
    evaluate_parts.function(
        dataset=folder / "dataset",
        parent=tmp_path / "other",
        checkpoint=folder / "parent",
        evaluation=tmp_path / "evaluation",
        settings=SETTINGS,
    )
    content = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    own, parents = content["metrics"]["all"], content["baselines"]["parent"]["all"]
    # With the model's texts the same vision tower would answer alike.
    assert own != parents
