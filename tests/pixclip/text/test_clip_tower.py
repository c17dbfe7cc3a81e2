"""CLIP's text transformer: equal to transformers' own, causal, and stretched by the public rule."""

import pytest
import torch
from transformers import CLIPTextConfig as HuggingFaceConfig
from transformers import CLIPTextModelWithProjection

from pixclip.config import ClipTextConfig
from pixclip.text.clip_tower import ClipTextTower, stretch_positions, stretched_length
from tests.pixclip.tiny_models import CLIP_TEXT

START, END = CLIP_TEXT.vocab_size - 2, CLIP_TEXT.end_token_id
IDS = torch.tensor([[START, 5, 6, 7, END, 0, 0], [START, 9, END, END, END, END, END]])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def tower(config: ClipTextConfig = CLIP_TEXT, seed: int = 0) -> ClipTextTower:
    torch.manual_seed(seed)
    made = ClipTextTower(config, embed_dim=8)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def transformers_peer(ours: ClipTextTower, eos_token_id: int) -> CLIPTextModelWithProjection:
    """transformers' tower with our weights, written down by hand."""
    config = ours.config
    peer = CLIPTextModelWithProjection(
        HuggingFaceConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            projection_dim=8,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            max_position_embeddings=config.context_length,
            hidden_act=config.activation,
            eos_token_id=eos_token_id,
        )
    )
    weights = {
        "text_model.embeddings.token_embedding.weight": ours.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": ours.positions(),
        "text_projection.weight": ours.projection.weight,
    }
    for end in ("weight", "bias"):
        weights[f"text_model.final_layer_norm.{end}"] = getattr(ours.norm_post, end)
        for i, block in enumerate(ours.blocks):
            theirs = f"text_model.encoder.layers.{i}"
            joint = getattr(block.attention.qkv, end).chunk(3)
            for name, part in zip("qkv", joint, strict=True):
                weights[f"{theirs}.self_attn.{name}_proj.{end}"] = part
            weights[f"{theirs}.self_attn.out_proj.{end}"] = getattr(block.attention.out, end)
            weights[f"{theirs}.layer_norm1.{end}"] = getattr(block.norm1, end)
            weights[f"{theirs}.layer_norm2.{end}"] = getattr(block.norm2, end)
            weights[f"{theirs}.mlp.fc1.{end}"] = getattr(block.mlp.fc1, end)
            weights[f"{theirs}.mlp.fc2.{end}"] = getattr(block.mlp.fc2, end)
    peer.load_state_dict(weights, strict=True)
    return peer.eval()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("eos_token_id", [2, END])  # by the largest id, as OpenAI; by the marker
@torch.no_grad()
def test_embeddings_equal_those_of_transformers_however_texts_are_filled_up(
    activation, eos_token_id
):
    ours = tower(CLIP_TEXT.changed(activation=activation))
    theirs = transformers_peer(ours, eos_token_id)(input_ids=IDS).text_embeds
    torch.testing.assert_close(ours(IDS), theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(IDS[1:, :3]), theirs[1:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(theirs[0], theirs[1], atol=1e-2)


@torch.no_grad()
def test_what_comes_after_the_end_marker_changes_nothing_and_what_comes_before_does():
    ours, changed = tower(), IDS.clone()
    changed[0, 5:] = 77
    torch.testing.assert_close(ours(changed), ours(IDS), atol=1e-6, rtol=0)
    changed[0, 1] = 77
    assert not torch.allclose(ours(changed)[0], ours(IDS)[0], atol=1e-3)


def test_a_text_without_an_end_marker_or_too_long_for_the_context_is_refused():
    with pytest.raises(IndexError):
        tower()(torch.full((2, 5), 3))
    with pytest.raises(ValueError, match=r"17 tokens do not fit into text\.context_length=16"):
        tower()(torch.full((1, 17), END))


def test_rows_that_are_fixed_never_move_and_the_others_learn():
    ours = tower(CLIP_TEXT.changed(num_fixed_positions=2))
    before = ours.positions().detach().clone()
    optimizer = torch.optim.AdamW(ours.parameters(), lr=0.1, weight_decay=0.5)
    ours(IDS).square().sum().backward()
    optimizer.step()
    assert torch.equal(ours.positions()[:2], before[:2])
    assert (ours.positions()[2:] != before[2:]).all()
    assert "fixed_positions" in ours.state_dict()


def test_saved_memory_changes_no_gradient():
    gradients = []
    for saves_memory in (False, True):
        ours = tower()
        ours.gradient_checkpointing = saves_memory
        ours(IDS).square().sum().backward()
        gradients.append(ours.token_embedding.weight.grad)
    assert torch.equal(*gradients)


def plain_stretch(table: torch.Tensor) -> list[torch.Tensor]:
    """Long-CLIP's rule, a row at a time."""
    rows = [table[i] for i in range(20)]
    for i in range(20, len(table) - 1):
        for k in range(4):
            rows.append((4 - k) / 4 * table[i] + k / 4 * table[i + 1])
    for k in range(4):
        rows.append(table[-1] + k / 4 * (table[-1] - table[-2]))
    return rows


@pytest.mark.parametrize("length", [22, 23, 77])
def test_a_stretched_position_table_follows_the_public_rule_row_by_row(length):
    table = torch.randn(length, 6, dtype=torch.float64)
    rows = plain_stretch(table)
    stretched = stretch_positions(table)
    assert len(stretched) == len(rows) == stretched_length(length)
    for number, row in enumerate(rows):
        torch.testing.assert_close(stretched[number], row, atol=1e-12, rtol=0)


def test_77_positions_become_248_and_too_few_are_refused():
    assert stretched_length(77) == 248
    with pytest.raises(ValueError, match="of 21 rows cannot be stretched"):
        stretch_positions(torch.zeros(21, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, "text.width must be a multiple of num_heads=5, got 24"),
        ({"end_token_id": 10_000}, "text.end_token_id must be below vocab_size=523, got 10000"),
        ({"num_fixed_positions": 16}, "num_fixed_positions must be below context_length=16"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CLIP_TEXT.changed(**change)
