"""Which parameters learn at which rate, over the whole run."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixclip.model import PixClip
from pixclip.training.engine import open_engine
from pixclip.training.schedule import (
    OptimizerConfig,
    freeze_other_parts,
    parameter_groups,
    rate_multiplier,
)
from tests.pixclip.training.small import CONFIG, small_model

STEPS = st.integers(min_value=1, max_value=300)


@given(warmup=st.integers(min_value=0, max_value=300), num_steps=STEPS)
def test_the_rate_rises_to_its_peak_and_then_never_rises_again(warmup, num_steps):
    curve = [rate_multiplier(step, warmup, num_steps) for step in range(2 * num_steps)]
    top = min(warmup, num_steps)
    assert all(0 <= share <= 1 for share in curve)
    assert curve[:top] == sorted(curve[:top])
    assert curve[top:] == sorted(curve[top:], reverse=True)
    assert all(share == 0 for share in curve[num_steps:])
    if warmup < num_steps:
        assert curve[warmup] == 1
        assert curve[num_steps - 1] > 0


def test_a_short_run_with_the_papers_warm_up_learns_from_its_first_step():
    assert rate_multiplier(0, 800, 11_719) == 1 / 800
    assert rate_multiplier(799, 800, 11_719) == 1
    assert rate_multiplier(11_718, 800, 11_719) < 1e-7


@pytest.mark.parametrize("mask_bias", [False, True])
def test_the_mask_convolution_with_its_bias_has_its_own_rate(mask_bias):
    config = CONFIG.changed(vision=CONFIG.vision.changed(mask_bias=mask_bias))
    model = PixClip(config)
    groups = parameter_groups(model, OptimizerConfig(mask_lr=1.0, rest_lr=2.0))
    fast = {id(p) for group in groups if group["lr"] == 1.0 for p in group["params"]}
    own = {id(p) for p in model.vision.mask_embed.parameters()}
    assert fast == own
    assert len(own) == (2 if mask_bias else 1)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_weight_decay_reaches_the_optimiser_that_steps_and_spares_norms_and_biases():
    model, config = small_model(), OptimizerConfig(weight_decay=0.03, betas=(0.8, 0.95))
    engine = open_engine(model, parameter_groups(model, config), betas=config.betas)
    decays = {group["name"]: group["weight_decay"] for group in engine.param_groups}
    assert decays == {"mask": 0.03, "rest": 0.03, "rest_no_decay": 0.0}
    assert {group["betas"] for group in engine.param_groups} == {(0.8, 0.95)}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in parameter_groups(model, config):
        for name in (names[id(parameter)] for parameter in group["params"]):
            is_spared = name.endswith(("bias", "logit_scale", "class_embedding")) or "norm" in name
            assert (group["weight_decay"] == 0) == is_spared, name


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change():
    model = small_model()
    engine = open_engine(model, parameter_groups(model, OptimizerConfig()))
    before = model.logit_scale.detach().clone()
    engine.backward(sum((p * torch.nan).sum() * 0 for p in model.parameters()))
    with pytest.raises(FloatingPointError, match="a gradient is not finite"):
        engine.step()
    assert torch.equal(model.logit_scale, before)


def test_rates_follow_their_peaks():
    model = small_model()
    engine = open_engine(model, parameter_groups(model, OptimizerConfig(mask_lr=4.0, rest_lr=2.0)))
    engine.set_rates(0.5)
    engine.set_rates(0.25)
    assert engine.rates() == {"mask": 1.0, "rest": 0.5, "rest_no_decay": 0.5}


def test_parts_that_a_stage_does_not_name_are_frozen():
    model = small_model()
    freeze_other_parts(model, ("mask", "adaptor"))
    free = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "vision.mask_embed.weight" in free
    assert {name.split(".")[0] for name in free - {"vision.mask_embed.weight"}} == {"adaptor"}
