"""Regions in every form become embeddings that depend on nothing but the region."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pixclip.masks import encode_mask
from tests.pixclip.tiny_models import tiny_model

TOLERANCE = {"atol": 1e-6, "rtol": 0}
BOX = (10, 5, 40, 30)


@pytest.fixture(scope="module", params=["clip", "eva02"])
def model(request):
    return tiny_model(request.param)


def picture(seed: int, width_px: int = 64, height_px: int = 48) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def box_array(image: Image.Image) -> np.ndarray:
    mask = np.zeros((image.height, image.width), dtype=bool)
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    return mask


def boxes(num: int) -> list[tuple[int, int, int, int]]:
    return [(2 * n, n, 2 * n + 20, n + 30) for n in range(num)]


def test_embeddings_are_normalised_float32_and_differ_between_masks(model):
    embeddings = model.encode_image(picture(0), boxes(5))
    assert embeddings.shape == (5, 24)
    assert embeddings.dtype == torch.float32
    assert not embeddings.requires_grad
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    assert torch.cdist(embeddings, embeddings).fill_diagonal_(1).min() > 1e-3


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_embeddings_do_not_depend_on_the_batch_size(model, batch_size):
    images = [picture(seed) for seed in range(3)]
    expected = model.encode_image(images, [boxes(4)] * 3)
    found = model.encode_image(images, [boxes(4)] * 3, batch_size=batch_size)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_embeddings_do_not_depend_on_order_or_company(model):
    images, masks = [picture(seed) for seed in range(5)], boxes(5)
    expected = model.encode_image(images, masks)
    order = [3, 0, 4, 1, 2]
    shuffled = model.encode_image([images[i] for i in order], [masks[i] for i in order])
    alone = torch.cat([model.encode_image(i, m) for i, m in zip(images, masks, strict=True)])
    torch.testing.assert_close(shuffled, expected[order], **TOLERANCE)
    torch.testing.assert_close(alone, expected, **TOLERANCE)


def test_one_region_in_every_form_gives_one_embedding(model, tmp_path):
    image = picture(0)
    image.save(tmp_path / "picture.png")
    mask = box_array(image)
    x1, y1, x2, y2 = BOX
    polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
    forms = [BOX, list(BOX), mask, mask.astype(np.uint8), Image.fromarray(mask)]
    forms += [encode_mask(mask), encode_mask(mask).as_coco(), polygon, [[polygon]]]
    expected = model.encode_image(image, BOX)
    for form in forms:
        for same in (image, np.asarray(image), str(tmp_path / "picture.png")):
            torch.testing.assert_close(model.encode_image(same, form), expected, **TOLERANCE)
    together = model.encode_image(image, [*forms[:-1], [polygon]])
    torch.testing.assert_close(together, expected.expand(len(forms), -1), **TOLERANCE)


def test_no_mask_is_a_mask_that_is_true_everywhere(model):
    image = picture(0)
    full = np.ones((image.height, image.width), dtype=bool)
    whole = model.encode_image(image)
    torch.testing.assert_close(model.encode_image(image, full), whole, **TOLERANCE)
    torch.testing.assert_close(model.encode_image([image], [None]), whole, **TOLERANCE)
    mixed = model.encode_image(image, [BOX, None])
    torch.testing.assert_close(mixed[1:], whole, **TOLERANCE)


def test_results_follow_the_order_of_images_then_masks(model):
    first, second, third = (picture(seed) for seed in range(3))
    stack = np.stack([box_array(second)] * 2)
    found = model.encode_image([first, second, third, first], [boxes(2), stack, None, []])
    expected = [
        model.encode_image(first, boxes(2)),
        model.encode_image(second, [BOX, BOX]),
        model.encode_image(third),
    ]
    torch.testing.assert_close(found, torch.cat(expected), **TOLERANCE)


def test_an_image_with_many_masks_is_decoded_and_embedded_once(model, monkeypatch):
    seen = []
    hook = model.vision.patch_embed.register_forward_hook(
        lambda layer, inputs, output: seen.append(len(inputs[0]))
    )
    model.encode_image([picture(0), picture(1)], [boxes(6), boxes(3)])
    hook.remove()
    assert seen == [2]


def test_nothing_asked_for_gives_an_empty_table(model):
    assert model.encode_image([]).shape == (0, 24)
    assert model.encode_image(picture(0), []).shape == (0, 24)
    assert model.encode_text([]).shape == (0, 24)


def test_a_mask_that_does_not_fit_is_refused_with_its_place(model):
    wrong = np.ones((5, 5), dtype=bool)
    with pytest.raises(ValueError, match=r"image 1, mask 2: the mask is 5 x 5 .* 48 x 64"):
        model.encode_image([picture(0), picture(1)], [BOX, [BOX, BOX, wrong]])
    with pytest.raises(ValueError, match="image 0, mask 0: the region covers no pixel"):
        model.encode_image(picture(0), (100, 100, 110, 110))


def test_an_image_that_cannot_be_read_is_refused_with_its_place(model):
    with pytest.raises(ValueError, match="image 1: not_an_image"):
        model.encode_image([picture(0), b"no image"])


def test_a_file_that_cannot_be_read_is_refused_with_its_place(model, tmp_path):
    for missing in (tmp_path / "nothing.jpg", tmp_path):
        with pytest.raises(ValueError, match=rf"image 1: unreadable: .*{missing.name}"):
            model.encode_image([picture(0), missing])


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_picture_that_ends_too_early_is_refused_with_its_place(model, tmp_path, ending):
    path = tmp_path / f"picture.{ending}"
    picture(1).save(path)
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(ValueError, match=r"image 1: unreadable: .*truncated"):
        model.encode_image([picture(0), Image.open(path)])


def test_numbers_one_by_one_are_refused_with_their_place(model):
    box = [torch.tensor(side) for side in (1.0, 2.0, 20.0, 30.0)]
    with pytest.raises(ValueError, match=r"image 0, mask 0: a region is an array.*tensor\(1"):
        model.encode_image(picture(0), box)


def test_masks_that_cannot_be_matched_with_images_are_refused(model):
    with pytest.raises(ValueError, match="2 images came with 1 entries of masks"):
        model.encode_image([picture(0), picture(1)], [BOX])
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        model.encode_image(picture(0), batch_size=0)


@pytest.mark.parametrize("is_training", [True, False])
def test_encoding_leaves_the_mode_of_the_model_as_it_was(model, is_training):
    model.train(is_training)
    model.encode_image(picture(0))
    assert model.training == is_training
    with pytest.raises(ValueError, match="covers no pixel"):
        model.encode_image(picture(0), (100, 100, 110, 110))
    assert model.training == is_training
    model.eval()


def test_texts_need_a_text_tower(model):
    with pytest.raises(ValueError, match=r"no text tower.*embed_pooled"):
        model.encode_text("a dog")


def test_pooled_texts_become_normalised_embeddings_that_can_be_trained(model):
    embeddings = model.embed_pooled(torch.randn(3, 16))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    assert embeddings.requires_grad


def test_texts_have_length_one_also_where_weights_are_rounded(model):
    rounded = copy.deepcopy(model).to(torch.bfloat16)
    embeddings = rounded.embed_pooled(torch.randn(3, 16))
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_similarity_is_the_cosine_whatever_the_lengths(model):
    images, texts = torch.randn(2, 24), torch.randn(3, 24)
    expected = [[torch.cosine_similarity(i, t, dim=0) for t in texts] for i in images]
    found = model.similarity(5 * images, texts / 7)
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize(
    ("images", "texts", "told"),
    [
        (torch.ones(2, 24), torch.ones(3, 16), r"\[2, 24\] and Tensor \[3, 16\]"),
        (torch.ones(24), torch.ones(3, 24), r"\[24\] and"),
        ("scene.jpg", ["a cat"], r"got str .* and list"),
        (np.ones((2, 24)), torch.ones(3, 24), "got ndarray"),
    ],
)
def test_similarity_tells_what_it_takes(model, images, texts, told):
    with pytest.raises(ValueError, match=f"encode_image and encode_text.*{told}"):
        model.similarity(images, texts)


@pytest.mark.parametrize("texts", [7, None, ["a dog", None], [["a dog", "a cat"]], b"a dog"])
def test_what_is_no_text_is_named(model, texts):
    with pytest.raises(ValueError, match=r"text [01] is no string"):
        model.encode_text(texts)


def test_importing_the_library_imports_no_torch():
    code = "import sys, pixclip; assert 'torch' not in sys.modules and 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
