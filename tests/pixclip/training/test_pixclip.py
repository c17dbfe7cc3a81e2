"""The fused forward pass gives what three separate ones give."""

from dataclasses import replace

import pytest
import torch

from pixclip.training.config import LN_100, LossConfig
from pixclip.training.pixclip import Embeddings, PixClipObjective, pool_regions, total_loss
from tests.pixclip import numpy_losses
from tests.pixclip.training.small import random_batch, small_model

torch.set_num_threads(1)
OPTIONS = LossConfig(label_smoothing=0.1)


def plain_losses(model, batch, config):
    """The three branches as one would write them down: a forward pass for each."""
    images = batch.images_UCHW[batch.image_index_B]
    full = model.preprocess.full_mask().expand(len(images), -1, -1, -1)
    tower = model.vision
    _, patches = tower.encode(tower.tokens(images, full), num_dense=len(images))
    pooled = pool_regions(
        patches, torch.arange(len(images)), batch.coverage_BP, config.coverage_threshold
    )
    return total_loss(
        Embeddings(
            tower(images, batch.masks_B1HW),
            model.adaptor(batch.texts_BE),
            tower(batch.crops_BCHW, batch.crop_masks_B1HW),
            tower.project(pooled),
        ),
        model.logit_scale.exp(),
        text_ids_b=batch.text_ids_B,
        is_full_image_b=batch.is_full_image_B,
        config=config,
    )


def gradients(model, losses):
    model.zero_grad()
    losses["total"].backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("micro_batch_size", [0, 1, 3, 8])
def test_one_pass_in_parts_of_any_size_gives_the_losses_and_gradients_of_three_passes(
    micro_batch_size,
):
    model, batch = small_model(), random_batch()
    fused = PixClipObjective(model, OPTIONS, micro_batch_size)(batch)
    plain = plain_losses(model, batch, OPTIONS)
    for name in ("cl", "fc", "lg", "total"):
        torch.testing.assert_close(fused[name], plain[name])
    expected = gradients(model, plain)
    for name, gradient in gradients(model, fused).items():
        torch.testing.assert_close(gradient, expected[name], msg=name, atol=1e-6, rtol=1e-4)


def test_wrong_captions_add_their_own_loss_and_nothing_where_they_have_no_weight():
    model, batch = small_model(), random_batch()
    plain = PixClipObjective(model, OPTIONS)(batch)
    losses = PixClipObjective(model, OPTIONS.changed(hard=0.5))(batch)
    assert "hard" not in plain
    regions = model.vision(batch.images_UCHW[batch.image_index_B], batch.masks_B1HW)
    expected = numpy_losses.hard_negatives(
        regions.detach().numpy(),
        model.adaptor(batch.texts_BE).detach().numpy(),
        model.adaptor(batch.negatives_ME).detach().numpy(),
        batch.negative_of_M.tolist(),
        model.logit_scale.exp().item(),
    )
    assert losses["hard"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["total"].item() == pytest.approx(plain["total"].item() + 0.5 * expected, rel=1e-5)


def test_without_a_weight_no_wrong_caption_is_encoded():
    model, batch = small_model(), random_batch()
    seen = []
    model.adaptor.register_forward_hook(lambda _, texts, __: seen.append(len(texts[0])))
    for hard in (0.0, 0.5):
        PixClipObjective(model, OPTIONS.changed(hard=hard))(batch)
    assert seen == [8, 8 + 6]


def test_regions_without_a_wrong_caption_take_no_part_in_that_loss():
    model, batch = small_model(), random_batch()
    none = replace(batch, negatives_ME=batch.negatives_ME[:0], negative_of_M=torch.arange(0))
    losses = PixClipObjective(model, LossConfig(alpha=0.0, beta=0.0, hard=0.5))(none)
    assert losses["hard"] == 0
    assert losses["total"] == losses["cl"]
    losses["total"].backward()
    assert all(
        torch.isfinite(p.grad).all() for p in model.vision.parameters() if p.grad is not None
    )


def test_parts_keep_no_activations_but_embeddings():
    model, batch = small_model(), random_batch()

    def kept_numbers(micro_batch_size):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            PixClipObjective(model, OPTIONS, micro_batch_size)(batch)
        return sum(sizes)

    assert kept_numbers(2) < kept_numbers(0) / 5


def test_a_branch_without_weight_is_not_computed():
    model = small_model()
    batch = replace(random_batch(), crops_BCHW=None, crop_masks_B1HW=None)
    losses = PixClipObjective(model, LossConfig(alpha=0.0, beta=0.0))(batch)
    assert losses["total"] == losses["cl"] > 0


@pytest.mark.parametrize("beyond", [-1.0, 1.0])
def test_a_learned_scale_beyond_its_bound_learns_to_come_back(beyond):
    model, batch = small_model(), random_batch()
    with torch.no_grad():
        model.logit_scale.fill_(LN_100 + beyond)
    losses = PixClipObjective(model, OPTIONS)(batch)
    losses["total"].backward()
    assert model.logit_scale.grad.item() > 0, "random embeddings call for a smaller scale"
    model.logit_scale.grad = None
    (-PixClipObjective(model, OPTIONS)(batch)["total"]).backward()
    assert (model.logit_scale.grad.item() < 0) == (beyond < 0), "never further up"


def test_a_frozen_scale_is_used_as_it_is_and_a_learned_one_is_bounded():
    model, batch = small_model(), random_batch()
    branches = PixClipObjective(model, OPTIONS)
    with torch.no_grad():
        model.logit_scale.fill_(LN_100 + 1)
    learned = branches(batch)["total"]
    model.logit_scale.requires_grad_(False)
    frozen = branches(batch)["total"]
    model.logit_scale.fill_(LN_100)
    assert branches(batch)["total"] == learned != frozen
