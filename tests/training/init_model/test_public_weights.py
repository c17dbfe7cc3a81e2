"""Public weights of any architecture become the model asked for, or the message says what to do."""

import json
import logging

import pytest
import torch

import pixclip
from components.core.errors import InputError, SettingsError
from pixclip.config import ARCHITECTURES, TextConfig, clip_text_of, to_dict
from pixclip.importers.positions import resized, whole_tables
from pixclip.text.clip_tower import stretch_positions
from tests.pixclip.importers import public_formats as public
from tests.pixclip.importers.conftest import CLIP, EVA02, build
from tests.pixclip.tiny_models import CLIP_TEXT as VOCABULARY
from tests.pixclip.tiny_models import save_clip_tokenizer
from tests.training.init_model.test_step import run

SIZES = {"vocab_size": VOCABULARY.vocab_size, "end_token_id": VOCABULARY.end_token_id}


@pytest.fixture(autouse=True)
def architectures(monkeypatch):
    """Small towers under the names of architectures."""
    known = {"small": CLIP, "small_fine": CLIP.changed(image_size_px=48), "small_eva": EVA02}
    for name, vision in known.items():
        monkeypatch.setitem(ARCHITECTURES, name, vision)
    torch.set_num_threads(1)


@pytest.fixture
def text_tower(tmp_path):
    """The description of a language model that is 12 wide."""
    folder = tmp_path / "text_tower"
    folder.mkdir()
    described = {"config": to_dict(TextConfig(embed_dim=12)), "provenance": {}}
    (folder / "text_tower.json").write_text(json.dumps(described))
    return folder


@pytest.fixture
def tokenizer(tmp_path):
    return save_clip_tokenizer(tmp_path / "tokenizer")


def clip_model(vision=CLIP, name="small", **text):
    return build(vision, text=clip_text_of(name).changed(**SIZES, **text))


def save(weights, path):
    torch.save(weights, path)
    return str(path)


def openai_clip(model):
    return public.openai(model.state_dict()) | public.openai_text(model.state_dict())


def test_a_checkpoint_of_public_weights_alone_reads_images_and_texts(tokenizer, tmp_path):
    original = clip_model()
    weights = save(openai_clip(original), tmp_path / "ViT.pt")
    settings = {"weights": weights, "format": "openai", "text": "clip", "architecture": "small"}
    metrics = run(tokenizer, tmp_path / "parent", **settings)
    model = pixclip.load(tmp_path / "parent")
    for name, tensor in original.state_dict().items():
        if name not in ("logit_scale", "vision.mask_embed.weight"):
            assert torch.equal(model.state_dict()[name], tensor), name
    assert metrics["num_new"] == 1 + model.vision.mask_embed.weight.numel()
    assert model.encode_text(["the red car", "a car"]).shape == (2, CLIP.embed_dim)
    assert {path.name for path in (tmp_path / "parent/text_tower").iterdir()} == {"tokenizer.json"}


def test_long_texts_get_a_stretched_table_of_which_the_first_rows_are_fixed(
    tokenizer, tmp_path, caplog
):
    original = clip_model()
    weights = save(openai_clip(original), tmp_path / "ViT.pt")
    run(
        tokenizer,
        tmp_path / "parent",
        weights=weights,
        format="openai",
        text="clip",
        architecture="small",
        context_length=248,
        num_fixed_positions=20,
    )
    model = pixclip.load(tmp_path / "parent")
    assert torch.equal(model.text.positions(), stretch_positions(original.text.positions()))
    assert len(model.text.fixed_positions) == 20
    report = json.loads((tmp_path / "parent/notes.json").read_text())["import_report"]
    assert report["changed"] == [
        "text.position_embedding: 77 rows became 248, the first 20 rows kept"
    ]
    assert "77 rows became 248" in caplog.text


def test_alphaclip_brings_the_text_tower_of_its_parent(tokenizer, tmp_path):
    original, parent = clip_model(), clip_model()
    run(
        tokenizer,
        tmp_path / "parent",
        weights=save(public.alphaclip(original.state_dict()), tmp_path / "alpha.pth"),
        format="alphaclip",
        text_weights=save(openai_clip(parent), tmp_path / "ViT.pt"),
        text="clip",
        architecture="small",
    )
    model = pixclip.load(tmp_path / "parent")
    assert torch.equal(model.vision.mask_embed.weight, original.vision.mask_embed.weight)
    assert torch.equal(model.text.projection.weight, parent.text.projection.weight)


def test_without_weights_clips_text_tower_is_drawn_with_the_tokenizers_vocabulary(
    tokenizer, tmp_path
):
    run(tokenizer, tmp_path / "parent", text="clip", recipe="tiny", context_length=50)
    text = pixclip.load(tmp_path / "parent").config.text
    assert (text.vocab_size, text.end_token_id) == (523, 522)
    assert (text.context_length, text.width, text.num_layers) == (50, 192, 4)


def test_a_folder_without_a_tokenizer_is_an_input_error(text_tower, tmp_path):
    with pytest.raises(InputError, match=r"none is there; give a folder with tokenizer\.json"):
        run(text_tower, tmp_path / "parent", text="clip")


def test_the_weights_own_projection_is_kept_where_the_width_fits(text_tower, tmp_path):
    original = build(CLIP)
    weights = save(public.openai(original.state_dict()), tmp_path / "ViT.pt")
    common = {"weights": weights, "format": "openai"}
    run(text_tower, tmp_path / "parent", **common, architecture="small")
    model = pixclip.load(tmp_path / "parent")
    assert torch.equal(model.vision.projection.weight, original.vision.projection.weight)
    assert model.adaptor.projection.out_features == CLIP.embed_dim
    with pytest.raises(InputError, match=r"width 16 with texts, the model one of 24: give it emb"):
        run(text_tower, tmp_path / "other", **common, architecture="small", embed_dim=24)
    run(
        text_tower,
        tmp_path / "new",
        **common,
        architecture="small",
        embed_dim=24,
        new_projection=True,
    )
    assert pixclip.load(tmp_path / "new").vision.projection.out_features == 24


def test_an_adaptor_of_another_language_model_names_both_widths_and_what_to_do(
    text_tower, tmp_path
):
    """As the weights of LLM2CLIP, for 4,096, on the text tower of a small language model."""
    original = build(EVA02)
    content = json.loads((text_tower / "text_tower.json").read_text())
    content["config"]["embed_dim"] = 20
    (text_tower / "text_tower.json").write_text(json.dumps(content))
    settings = {
        "weights": save(public.llm2clip(original.state_dict()), tmp_path / "llm2clip.pt"),
        "format": "llm2clip",
        "recipe": "pixclip_b16_paper",
        "architecture": "small_eva",
    }
    with pytest.raises(InputError) as told:
        run(text_tower, tmp_path / "parent", **settings)
    message = str(told.value)
    told_first = message.splitlines()[1]
    assert "reads a language model of width 12, the text tower given has 20" in told_first
    assert "new_adaptor" in message
    assert "its keys are those of" not in message
    run(text_tower, tmp_path / "parent", **settings, new_adaptor=True)
    model = pixclip.load(tmp_path / "parent")
    assert torch.equal(model.vision.projection.weight, original.vision.projection.weight)
    notes = json.loads((tmp_path / "parent/notes.json").read_text())["import_report"]
    assert any(new["target"].startswith("adaptor.") for new in notes["new"])


@pytest.mark.parametrize(("theirs", "ours"), [("small", "small_fine"), ("small_fine", "small")])
def test_positions_are_interpolated_between_image_sizes_on_request(
    theirs, ours, text_tower, tmp_path, caplog
):
    original = build(ARCHITECTURES[theirs])
    weights = save(public.openai(original.state_dict()), tmp_path / "ViT.pt")
    settings = {"weights": weights, "format": "openai", "architecture": ours}
    with pytest.raises(InputError, match="or interpolate with resize_positions"):
        run(text_tower, tmp_path / "parent", **settings)
    run(text_tower, tmp_path / "parent", **settings, resize_positions=True)
    table = pixclip.load(tmp_path / "parent").vision.position_embedding
    grid = ARCHITECTURES[ours].grid
    assert torch.equal(table[0], original.vision.position_embedding[0])
    torch.testing.assert_close(table, resized(original.vision.position_embedding, grid))
    assert "rows became" in caplog.text


def test_a_constant_table_stays_constant_and_the_same_grid_the_same():
    table = torch.full((17, 3), 2.5)
    torch.testing.assert_close(resized(table, 6), torch.full((37, 3), 2.5))
    table = torch.randn(17, 3)
    torch.testing.assert_close(resized(table, 4), table)


def test_weights_of_another_activation_and_other_pixels_are_taken_by_settings(text_tower, tmp_path):
    """As a model of LAION: GELU, pixels by mean 0.5."""
    original = build(CLIP.changed(activation="gelu"))
    folder = tmp_path / "laion"
    folder.mkdir()
    save(public.openai(original.state_dict()), folder / "open_clip_pytorch_model.bin")
    described = {
        "model_cfg": {"vision_cfg": {"width": 64, "head_width": 64, "image_size": 32}},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    settings = {"weights": str(folder), "format": "open_clip", "architecture": "small"}
    with pytest.raises(InputError, match=r"activation=gelu, vision\.activation is quick"):
        run(text_tower, tmp_path / "parent", **settings)
    for name in ("activation", "pixel_mean", "pixel_std"):
        settings[name] = "gelu" if name == "activation" else [0.5] * 3
    run(text_tower, tmp_path / "parent", **settings)
    config = pixclip.load(tmp_path / "parent").config
    assert config.vision.activation == "gelu"
    assert config.preprocess.mean == config.preprocess.std == (0.5,) * 3


def test_what_no_description_tells_is_printed(text_tower, tmp_path, caplog):
    weights = save(public.openai(build(CLIP).state_dict()), tmp_path / "weights.pt")
    with caplog.at_level(logging.WARNING):
        for format_name in ("open_clip", "openai"):
            run(
                text_tower,
                tmp_path / format_name,
                weights=weights,
                format=format_name,
                architecture="small",
            )
    assert (
        "init_model assumes vision.activation=quick_gelu: the source does not tell" in caplog.text
    )
    assert "vision.activation=quick_gelu: as all weights of 'openai'" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "vit_h"}, r"init_model.architecture: no architecture 'vit_h'; known"),
        ({"architecture": "eva02_b16", "activation": "gelu"}, "must be swiglu for kind eva02"),
        ({"pixel_mean": [0.5]}, "preprocess.mean must have more values|mean"),
        ({"pixel_std": [0.0, 0.5, 0.5]}, "pixel_std"),
    ],
)
def test_a_model_that_cannot_be_is_a_settings_error(settings, message, text_tower, tmp_path):
    with pytest.raises(SettingsError, match=message):
        run(text_tower, tmp_path / "parent", **settings)


def test_each_known_architecture_has_clips_own_text_tower():
    sizes = {
        "clip_vit_b16": (512, 8, "quick_gelu"),
        "clip_vit_l14": (768, 12, "quick_gelu"),
        "clip_vit_l14_336": (768, 12, "quick_gelu"),
        "eva02_b16": (512, 8, "gelu"),
        "eva02_l14": (768, 12, "gelu"),
        "eva02_l14_336": (768, 12, "gelu"),
        "tiny": (192, 3, "gelu"),
    }
    for name, expected in sizes.items():
        text = clip_text_of(name)
        assert (text.width, text.num_heads, text.activation) == expected
        assert text.num_layers == (4 if name == "tiny" else 12)
    assert whole_tables(clip_model(num_fixed_positions=3).state_dict())[
        "text.position_embedding"
    ].shape == (77, 64)
