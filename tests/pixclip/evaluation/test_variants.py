import numpy as np
import pytest
import torch
from PIL import Image

from pixclip.evaluation.protocol import EvaluationError
from pixclip.evaluation.results import MODEL
from pixclip.evaluation.variants import (
    MASK_CONV_ONLY,
    MASKED_CROP,
    WHOLE_IMAGE,
    Variants,
    embed_benchmark,
)
from pixclip.masks import decode_mask, mask_box
from tests.pixclip.evaluation.models import VISION, tiny_model
from tests.pixclip.evaluation.scenes import scenes

SAMPLES = scenes(7)


@pytest.fixture(scope="module")
def models():
    torch.set_num_threads(1)
    return tiny_model(1), tiny_model(2)


@pytest.fixture(scope="module")
def embedded(models):
    counted = []
    variants = Variants(*models)
    found = embed_benchmark(variants, SAMPLES, batch_size=4, on_regions=counted.append)[1]
    assert sum(counted) == sum(len(sample.regions) for sample in SAMPLES)
    return found


def masks(sample):
    return [decode_mask(region.mask) for region in sample.regions]


def test_the_model_sees_what_encode_image_sees(models, embedded):
    images = [sample.image() for sample in SAMPLES]
    wanted = models[0].encode_image(images, [masks(sample) for sample in SAMPLES])
    torch.testing.assert_close(embedded[MODEL].regions_RD, wanted, atol=1e-5, rtol=0)
    whole = models[0].encode_image(images)
    torch.testing.assert_close(embedded[MODEL].images_UD, whole, atol=1e-5, rtol=0)


def test_regions_of_one_image_are_one_to_the_whole_image_baseline(models, embedded):
    wanted = [models[0].encode_image(s.image()) for s in SAMPLES for _ in s.regions]
    regions_RD = embedded[WHOLE_IMAGE].regions_RD
    torch.testing.assert_close(regions_RD, torch.cat(wanted), atol=1e-5, rtol=0)
    assert torch.equal(regions_RD[1], regions_RD[2])  # of the second scene


def test_a_masked_crop_shows_the_region_alone(models, embedded):
    def cut_out(sample, mask):
        x1, y1, x2, y2 = map(int, mask_box(mask))
        mean = np.round(255 * np.array(models[0].config.preprocess.mean))
        pixels = np.where(mask[..., None], np.array(sample.image()), mean)[y1:y2, x1:x2]
        return Image.fromarray(pixels.astype(np.uint8))

    crops = [cut_out(sample, mask) for sample in SAMPLES for mask in masks(sample)]
    wanted = models[0].encode_image(crops)
    torch.testing.assert_close(embedded[MASKED_CROP].regions_RD, wanted, atol=1e-5, rtol=0)


def test_mask_conv_only_is_the_parent_under_the_new_convolution(models, embedded):
    model, parent = models
    mixed = tiny_model(2)
    mixed.vision.mask_embed.load_state_dict(model.vision.mask_embed.state_dict())
    images = [sample.image() for sample in SAMPLES]
    wanted = mixed.encode_image(images, [masks(sample) for sample in SAMPLES])
    found = embedded[MASK_CONV_ONLY].regions_RD
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    before = parent.encode_image(images, [masks(sample) for sample in SAMPLES])
    assert not torch.allclose(found, before, atol=1e-2)


@pytest.mark.parametrize(
    "change", [{"embed_dim": 8}, {"num_layers": 1}, {"image_size_px": 40}, {"mask_bias": True}]
)
def test_a_parent_of_another_architecture_is_refused_unless_only_the_mask_bias_is_new(change):
    model = tiny_model(1, VISION.changed(**change))
    if "mask_bias" in change:
        Variants(model, tiny_model(2))
        return
    with pytest.raises(EvaluationError, match="is no parent"):
        Variants(model, tiny_model(2))


def test_the_batch_size_changes_nothing(models, embedded):
    again = embed_benchmark(Variants(*models), SAMPLES, batch_size=1, on_regions=lambda _: None)[1]
    for name, vectors in embedded.items():
        torch.testing.assert_close(
            again[name].regions_RD, vectors.regions_RD, atol=1e-5, rtol=0, msg=name
        )


def test_an_empty_split_is_refused(models):
    with pytest.raises(EvaluationError, match="no samples"):
        embed_benchmark(Variants(*models), [], batch_size=4, on_regions=lambda _: None)
