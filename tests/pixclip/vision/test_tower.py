"""The vision towers of both kinds: parent equality, saved work, memory savings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixclip.config import ARCHITECTURES, VisionConfig
from pixclip.vision import VisionTower, build_vision_tower
from pixclip.vision.blocks import RotaryPositions

SMALL = {"image_size_px": 32, "patch_size_px": 8, "width": 32, "num_layers": 3, "num_heads": 2}
CLIP = ARCHITECTURES["clip_vit_b16"].changed(**SMALL, mlp_width=64, embed_dim=24)
EVA02 = ARCHITECTURES["eva02_b16"].changed(**SMALL, mlp_width=48, embed_dim=24)
both_kinds = pytest.mark.parametrize("config", [CLIP, EVA02], ids=["clip", "eva02"])


def random_input(config: VisionConfig, num: int = 4, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    side = config.image_size_px
    images = torch.randn(num, 3, side, side, generator=generator)
    return images, torch.randn(num, 1, side, side, generator=generator)


def small_tower(config: VisionConfig, *, trained: bool = True) -> VisionTower:
    """A tower whose every weight is random, the mask embedding's too if `trained`."""
    torch.manual_seed(0)
    tower = build_vision_tower(config)
    for name, parameter in tower.named_parameters():
        if trained or not name.startswith("mask_embed"):
            torch.nn.init.normal_(parameter, std=0.2)
    return tower


@both_kinds
@pytest.mark.parametrize("mask_bias", [False, True])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_new_tower_equals_its_parent_whatever_the_mask(config, mask_bias, seed):
    tower = small_tower(config.changed(mask_bias=mask_bias), trained=False)
    images, masks = random_input(config, seed=seed)
    with torch.no_grad():
        assert torch.equal(tower(images, masks), tower(images, None))


@both_kinds
def test_a_mask_changes_the_embedding_of_a_trained_tower(config):
    tower = small_tower(config)
    images, masks = random_input(config)
    assert (tower(images, masks) - tower(images, None)).abs().max() > 1e-3


def test_initialising_a_tower_again_keeps_the_mask_embedding_at_zero():
    tower = small_tower(CLIP.changed(mask_bias=True))
    for layer in tower.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    assert not tower.mask_embed.weight.any()
    assert not tower.mask_embed.bias.any()


@both_kinds
@pytest.mark.parametrize("num_dense", [0, 1, 2, 4])
def test_embeddings_and_patches_equal_those_of_a_last_block_computed_for_all_tokens(
    config, num_dense
):
    tower = small_tower(config)
    tokens = tower.tokens(*random_input(config))
    embeddings, patches = tower.encode(tokens, num_dense)
    for block in tower.blocks:
        tokens = block(tokens)
    full = tower.norm_post(tokens)
    split = len(tokens) - num_dense
    torch.testing.assert_close(embeddings, tower.project(full[:split, 0]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(patches, full[split:, 1:], atol=1e-6, rtol=1e-5)


@both_kinds
def test_an_image_embedded_once_for_many_masks_gives_what_each_pair_gives(config):
    tower = small_tower(config)
    images, masks = random_input(config)
    index = torch.tensor([1, 1, 0, 3])
    shared = tower.tokens_of_regions(images, masks, index)
    torch.testing.assert_close(shared, tower.tokens(images[index], masks), atol=1e-6, rtol=1e-5)


@both_kinds
def test_attention_of_cls_is_what_its_output_is_weighted_with(config):
    tower = small_tower(config)
    images, masks = random_input(config)
    attention = tower.cls_attention(images, masks)
    assert attention.shape == (4, config.num_heads, config.grid**2)
    assert (attention > 0).all()
    assert (attention.sum(-1) < 1).all()
    tokens = tower.tokens(images, masks)
    for block in tower.blocks[:-1]:
        tokens = block(tokens)
    last = tower.blocks[-1]
    _, _, values = last.attention.queries_keys_values(last.norm1(tokens), None)
    own = 1 - attention.sum(-1, keepdim=True)
    weights = torch.cat([own, attention], dim=-1)
    heads = (weights.unsqueeze(2) @ values).flatten(1)
    expected = last.attention(last.norm1(tokens))[:, 0]
    shown = last.attention.out(last.attention.norm(heads))
    torch.testing.assert_close(shown, expected, atol=1e-5, rtol=1e-4)


@both_kinds
def test_gradient_checkpointing_changes_no_gradient(config):
    tower = small_tower(config)
    expected = gradients(tower, config)
    tower.gradient_checkpointing = True
    for name, gradient in gradients(tower, config).items():
        assert torch.equal(gradient, expected[name]), name


@both_kinds
def test_the_mask_embedding_of_a_new_tower_learns(config):
    tower = small_tower(config, trained=False)
    assert gradients(tower, config)["mask_embed.weight"].abs().max() > 0


@both_kinds
def test_a_tower_runs_in_bf16_and_stays_near_its_float32_result(config):
    tower = small_tower(config, trained=False)
    images, masks = random_input(config)
    expected = tower(images, masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = tower(images, masks)
    cast = tower.to(torch.bfloat16)(images, masks)
    assert mixed.dtype == cast.dtype == torch.bfloat16
    for result in (mixed, cast):
        assert torch.cosine_similarity(result.float(), expected).min() > 0.999


@both_kinds
def test_dense_patches_of_no_sample_are_an_empty_table(config):
    tower = small_tower(config)
    embeddings, patches = tower.encode(tower.tokens(*random_input(config)))
    assert embeddings.shape == (4, config.embed_dim)
    assert patches.shape == (0, config.grid**2, config.width)


def turned(head_Nd: np.ndarray, grid: int, pretrained_grid: int) -> np.ndarray:
    """RoPE as its paper writes it: pairs of channels are complex numbers, turned by the place."""
    pairs = head_Nd[:, 0::2] + 1j * head_Nd[:, 1::2]
    half = pairs.shape[1] // 2
    for patch in range(grid**2):
        for channel in range(half):
            frequency = 10_000 ** (-channel / half)
            for part, place in enumerate(divmod(patch, grid)):  # row, then column
                angle = place / grid * pretrained_grid * frequency
                pairs[1 + patch, part * half + channel] *= np.exp(1j * angle)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(head_Nd.shape)


def test_rotary_attention_equals_a_plain_loop_over_patches_and_channels():
    attention = small_tower(EVA02).blocks[0].attention.double()
    tokens = torch.randn(1, 17, 32, generator=torch.Generator().manual_seed(0)).double()
    tables = [
        layer(tokens)[0].detach().numpy() for layer in (attention.q, attention.k, attention.v)
    ]
    heads = []
    for head in (slice(0, 16), slice(16, 32)):
        query, key, value = (table[:, head] for table in tables)
        scores = np.exp(turned(query, 4, 16) @ turned(key, 4, 16).T / 16**0.5)
        heads.append(scores / scores.sum(axis=1, keepdims=True) @ value)
    joined = torch.from_numpy(np.concatenate(heads, axis=1))
    expected = attention.out(attention.norm(joined))
    torch.testing.assert_close(attention(tokens)[0], expected, atol=1e-6, rtol=1e-5)


def test_rotary_positions_of_another_resolution_span_the_pretrained_range():
    fine, coarse = RotaryPositions(8, 4, 16), RotaryPositions(4, 4, 16)
    every_second = fine.cosines.view(8, 8, 16)[::2, ::2].reshape(16, 16)
    torch.testing.assert_close(every_second, coarse.cosines)


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [("clip_vit_b16", 86_192_640), ("clip_vit_l14", 303_966_208), ("eva02_b16", 86_263_040)],
)
def test_an_architecture_has_as_many_parameters_as_its_public_weights(name, num_parameters):
    with torch.device("meta"):
        tower = build_vision_tower(ARCHITECTURES[name])
    num_mask = tower.mask_embed.weight.numel()
    assert sum(p.numel() for p in tower.parameters()) - num_mask == num_parameters


def gradients(tower: VisionTower, config: VisionConfig) -> dict[str, torch.Tensor]:
    tower.zero_grad()
    embeddings, patches = tower.encode(tower.tokens(*random_input(config)), num_dense=2)
    (embeddings.square().sum() + tower.project(patches.mean(1)).square().sum()).backward()
    return {name: p.grad.clone() for name, p in tower.named_parameters()}
