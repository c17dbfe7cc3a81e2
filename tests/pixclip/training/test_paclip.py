"""The objective of PA-CLIP."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixclip.training.config import PartLossConfig
from pixclip.training.contrastive import hard_negative_loss
from pixclip.training.paclip import PaClipObjective
from tests.pixclip import numpy_losses
from tests.pixclip.training.small_parts import (
    MIRRORED,
    SAME_TEXT,
    random_parts,
    small_part_model,
)

SCALE = float(np.exp(2.0))


def numbers(tensor):
    return tensor.detach().double().numpy()


def plain_losses(model, batch, **options):
    """Each image, crop and text by itself, and double loops over what they become."""
    full = model.preprocess.full_mask()[None]

    def seen(pixels):
        return np.stack([numbers(model.vision(one[None], full))[0] for one in pixels])

    def read(texts):
        return np.stack([numbers(model.text(one[None]))[0] for one in texts])

    images, crops, parts = seen(batch.images_bCHW), seen(batch.crops_kCHW), read(batch.parts_kl)
    columns = options.get("columns", slice(None))
    slots = batch.slots_k.tolist()
    ids = batch.part_ids_s2[slots][:, columns].numpy() if columns is not None else None
    smoothing = options.get("smoothing", 0.0)
    return {
        "short": numpy_losses.contrastive(
            *(images, read(batch.short_bl), SCALE, batch.short_ids_b.numpy()),
            *(batch.has_short_b.numpy(), smoothing),
        ),
        "long": numpy_losses.contrastive(
            *(images, read(batch.long_bl), SCALE, batch.long_ids_b.numpy()),
            *(batch.has_long_b.numpy(), smoothing),
        ),
        "part": numpy_losses.contrastive(crops, parts, SCALE, ids, None, smoothing),
        "hard": numpy_losses.hard_negatives(
            *(crops, parts, read(batch.negatives_ml), batch.negative_of_m.tolist(), SCALE)
        ),
    }


def test_the_losses_are_those_of_separate_passes_and_double_loops():
    model, batch = small_part_model(), random_parts()
    config = PartLossConfig(short=0.8, long=1.2, alpha=0.5, hard=0.3, label_smoothing=0.1)
    losses = PaClipObjective(model, config)(batch)
    expected = plain_losses(model, batch, smoothing=0.1)
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name
    total = sum(
        weight * expected[name]
        for name, weight in {"short": 0.8, "long": 1.2, "part": 0.5, "hard": 0.3}.items()
    )
    assert losses["total"].item() == pytest.approx(total, rel=1e-4)


def test_both_sides_of_a_part_are_wrong_answers_for_each_other_only_if_asked():
    model, batch = small_part_model(), random_parts()
    losses = PaClipObjective(model, PartLossConfig(mirrored_parts="negative"))(batch)
    expected = plain_losses(model, batch, columns=slice(0, 1))["part"]
    assert losses["part"].item() == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(plain_losses(model, batch)["part"], rel=1e-4)
    assert MIRRORED != SAME_TEXT


def test_equal_captions_are_wrong_answers_for_each_other_only_if_asked():
    model, batch = small_part_model(), random_parts()
    losses = PaClipObjective(model, PartLossConfig(same_text="negative"))(batch)
    expected = plain_losses(model, batch, columns=None)["part"]
    assert losses["part"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("short", "long", "alpha"), [w for w in product((0.0, 1.0), repeat=3) if any(w)]
)
def test_any_subset_of_captions_trains_and_the_others_are_not_encoded(
    short, long, alpha, monkeypatch
):
    model, batch = small_part_model(), random_parts()
    num_texts, num_pixels = [], []
    read, see = model.text.forward, model.vision.tokens
    monkeypatch.setattr(model.text, "forward", lambda ids: num_texts.append(len(ids)) or read(ids))
    monkeypatch.setattr(
        model.vision, "tokens", lambda px, masks: num_pixels.append(len(px)) or see(px, masks)
    )
    losses = PaClipObjective(model, PartLossConfig(short=short, long=long, alpha=alpha))(batch)
    num_images, num_parts = len(batch.images_bCHW), len(batch.crops_kCHW)
    assert sum(num_pixels) == num_images + bool(alpha) * num_parts
    assert sum(num_texts) == (bool(short) + bool(long)) * num_images + bool(alpha) * num_parts
    expected = plain_losses(model, batch)
    for name, weight in {"short": short, "long": long, "part": alpha}.items():
        assert losses[name].item() == pytest.approx(weight and expected[name], rel=1e-4)
    losses["total"].backward()
    assert model.vision.patch_embed.weight.grad.abs().sum() > 0
    assert model.text.projection.weight.grad.abs().sum() > 0


def test_a_batch_without_a_part_has_finite_losses_and_gradients():
    model = small_part_model()
    batch = random_parts(ranks=slice(1, 2))
    assert len(batch.crops_kCHW) == 0
    losses = PaClipObjective(model, PartLossConfig(hard=1.0))(batch)
    losses["total"].backward()
    assert losses["part"].item() == losses["hard"].item() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_parts_have_a_temperature_of_their_own_unless_it_is_shared():
    model, batch = small_part_model(), random_parts()
    own = PaClipObjective(model, PartLossConfig())
    with torch.no_grad():
        own.part_logit_scale.fill_(1.0)
    losses = own(batch)
    shared = PaClipObjective(model, PartLossConfig(part_temperature="shared"))(batch)
    assert losses["short"] == shared["short"]
    assert losses["part"] != shared["part"]
    losses["part"].backward()
    assert own.part_logit_scale.grad.abs() > 0
    assert model.logit_scale.grad is None


def test_padding_changes_no_loss():
    model, batch = small_part_model(), random_parts()
    padded = replace(batch, short_bl=torch.nn.functional.pad(batch.short_bl, (0, 1)))
    plain, filled = (PaClipObjective(model, PartLossConfig())(one) for one in (batch, padded))
    assert plain["total"].item() == pytest.approx(filled["total"].item(), rel=1e-6)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.lists(st.integers(0, 5), max_size=9),
    st.floats(0.1, 100),
    st.integers(0, 99),
)
def test_the_hard_negative_loss_is_that_of_a_double_loop(num_parts, of_part, scale, seed):
    of_part = [part % num_parts for part in of_part]
    crops, texts = draw(seed, num_parts, 5), draw(seed + 1, num_parts, 5)
    negatives = draw(seed + 2, len(of_part), 5)
    found = hard_negative_loss(
        *(crops, texts, negatives, torch.tensor(of_part).long(), torch.tensor([scale]).double())
    )
    expected = numpy_losses.hard_negatives(
        crops.numpy(), texts.numpy(), negatives.numpy(), of_part, scale
    )
    assert found.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)
