"""Every loss against a plain double loop, and what the options mean."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixclip.training.config import LossConfig
from pixclip.training.contrastive import contrastive_loss, positives_loss
from pixclip.training.pixclip import Embeddings, pool_regions, total_loss
from tests.pixclip import numpy_losses

torch.set_num_threads(1)
SCALE = torch.tensor([7.0], dtype=torch.float64)
SIZES = st.integers(min_value=1, max_value=9)


def draw(seed, *shape) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def flags(seed, count) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(count) < 0.6)


def labels(seed, count) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 4, count))


def close(value: torch.Tensor, expected: float) -> bool:
    return value.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    count=SIZES,
    width=SIZES,
    seed=st.integers(0, 999),
    has_ids=st.booleans(),
    has_valid=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1]),
    chunk_size=SIZES,
)
def test_the_contrastive_loss_is_that_of_a_double_loop(
    count, width, seed, has_ids, has_valid, smoothing, chunk_size
):
    visual, text = draw(seed, count, width), draw(seed + 1, count, width)
    ids = labels(seed, count) if has_ids else None
    is_valid = flags(seed, count) if has_valid else None
    loss = contrastive_loss(
        visual,
        text,
        SCALE,
        ids_b=ids,
        is_valid_b=is_valid,
        label_smoothing=smoothing,
        chunk_size=chunk_size,
    )
    expected = numpy_losses.contrastive(visual.numpy(), text.numpy(), 7.0, ids, is_valid, smoothing)
    assert close(loss, expected)


@settings(deadline=None, max_examples=20)
@given(count=st.integers(2, 12), chunk_size=SIZES, seed=st.integers(0, 99))
def test_the_chunked_loss_has_the_gradients_of_the_plain_one(count, chunk_size, seed):
    gradients = []
    for size in (chunk_size, count):
        sides = [draw(seed + i, count, 5).requires_grad_() for i in (0, 1)]
        scale = SCALE.clone().requires_grad_()
        ids = labels(seed, count)
        loss = contrastive_loss(*sides, scale, ids_b=ids, label_smoothing=0.1, chunk_size=size)
        loss.backward()
        gradients.append([tensor.grad for tensor in (*sides, scale)])
    for chunked, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(chunked, plain, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(count=SIZES, seed=st.integers(0, 999))
def test_the_positives_loss_is_that_of_a_loop(count, seed):
    visual, target, is_valid = draw(seed, count, 4), draw(seed + 1, count, 4), flags(seed, count)
    expected = numpy_losses.positives(visual.numpy(), target.numpy(), is_valid)
    assert close(positives_loss(visual, target, is_valid), expected)


@settings(deadline=None, max_examples=40)
@given(
    num_images=st.integers(1, 4),
    count=SIZES,
    num_patches=SIZES,
    seed=st.integers(0, 999),
    threshold=st.sampled_from([0.0, 0.5, 0.95]),
)
def test_pooling_is_that_of_a_double_loop_also_where_no_patch_is_covered(
    num_images, count, num_patches, seed, threshold
):
    generator = np.random.default_rng(seed)
    patches = draw(seed, num_images, num_patches, 3)
    index = torch.from_numpy(generator.integers(0, num_images, count))
    coverage = torch.from_numpy(generator.random((count, num_patches)).round(1))
    pooled = pool_regions(patches, index, coverage, threshold)
    expected = numpy_losses.pool(patches.numpy(), index, coverage.numpy(), threshold)
    np.testing.assert_allclose(pooled.numpy(), expected, rtol=1e-6)


def test_a_mask_that_covers_no_patch_takes_the_one_it_covers_most():
    patches = torch.arange(8.0).reshape(1, 4, 2)
    coverage = torch.tensor([[0.0, 0.1, 0.3, 0.3], [0.0, 0.0, 0.0, 0.0]])
    pooled = pool_regions(patches, torch.tensor([0, 0]), coverage, 0.5)
    assert pooled.tolist() == [[4.0, 5.0], [0.0, 1.0]]


def embeddings(count=6) -> Embeddings:
    return Embeddings(*(draw(seed, count, 5).requires_grad_() for seed in range(4)))


def losses_of(made: Embeddings, config: LossConfig, is_full=None, ids=None):
    count = len(made.regions_bD)
    return total_loss(
        made,
        SCALE,
        text_ids_b=torch.arange(count) if ids is None else ids,
        is_full_image_b=torch.zeros(count, dtype=torch.bool) if is_full is None else is_full,
        config=config,
    )


@pytest.mark.parametrize("fc_target", ["text", "region", "region_positives"])
@pytest.mark.parametrize("lg_target", ["region", "text"])
def test_the_total_is_the_weighted_sum_of_what_the_options_name(fc_target, lg_target):
    made = embeddings()
    regions, texts, crops, pooled = (
        side.detach().numpy()
        for side in (made.regions_bD, made.texts_bD, made.crops_bD, made.pooled_bD)
    )
    is_full = torch.tensor([False, True, False, False, True, False])
    ids = torch.tensor([1, 2, 3, 3, 2, 4])
    config = LossConfig(alpha=0.3, beta=0.7, fc_target=fc_target, lg_target=lg_target)
    losses = losses_of(made, config, is_full, ids)
    cl = numpy_losses.contrastive(regions, texts, 7.0, ids)
    target = texts if fc_target == "text" else regions
    fc = (
        numpy_losses.positives(crops, regions, ~is_full)
        if fc_target == "region_positives"
        else numpy_losses.contrastive(crops, target, 7.0, ids, ~is_full)
    )
    target = texts if lg_target == "text" else regions
    lg = numpy_losses.contrastive(pooled, target, 7.0, ids, ~is_full)
    assert close(losses["cl"], cl)
    assert close(losses["fc"], fc)
    assert close(losses["lg"], lg)
    assert close(losses["total"], cl + 0.3 * fc + 0.7 * lg)


def test_a_full_image_teaches_neither_the_crop_nor_the_dense_branch():
    made = embeddings(3)
    is_full = torch.tensor([False, True, False])
    losses = losses_of(made, LossConfig(alpha=1.0, beta=1.0), is_full)
    (losses["fc"] + losses["lg"]).backward()
    for side in (made.crops_bD, made.pooled_bD, made.regions_bD):
        assert side.grad[1].abs().max() == 0
        assert side.grad[0].abs().max() > 0


def test_a_batch_of_full_images_alone_has_finite_losses_and_gradients():
    made = embeddings(2)
    losses = losses_of(made, LossConfig(), torch.tensor([True, True]))
    assert losses["fc"] == losses["lg"] == 0
    losses["total"].backward()
    assert all(side.grad.isfinite().all() for side in (made.regions_bD, made.crops_bD))


def test_the_gradient_of_eq_6_stops_where_asked():
    for stops in (True, False):
        made = embeddings(3)
        losses_of(made, LossConfig(lg_stop_gradient=stops))["lg"].backward()
        assert (made.regions_bD.grad is None) == stops


def test_another_sample_with_the_same_text_is_no_wrong_answer_unless_asked():
    made, ids = embeddings(2), torch.tensor([5, 5])
    assert losses_of(made, LossConfig(), ids=ids)["total"] == 0
    assert losses_of(made, LossConfig(same_text="negative"), ids=ids)["total"] > 0


def test_branches_that_are_off_count_nothing():
    made = replace(embeddings(), crops_bD=None, pooled_bD=None)
    losses = losses_of(made, LossConfig())
    assert losses["fc"] == losses["lg"] == 0
    assert losses["total"] == losses["cl"]


def test_the_loss_is_exact_inside_autocast():
    visual, text = draw(0, 8, 16).float(), draw(1, 8, 16).float()
    exact = contrastive_loss(visual, text, torch.tensor([100.0]))
    with torch.autocast("cpu", torch.bfloat16):
        assert contrastive_loss(visual, text, torch.tensor([100.0])) == exact
