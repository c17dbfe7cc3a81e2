"""Weights of every public format become the same model again, or are refused with every reason."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from pixclip.config import CLIP_MEAN, CLIP_STD
from pixclip.importers import FORMATS, ImportChoices, WeightsRefused, import_weights
from tests.pixclip.importers import public_formats as public
from tests.pixclip.importers.conftest import CLIP, EVA02, build

BIASED = EVA02.changed(mask_bias=True)
WRITERS = {
    "openai": (CLIP, lambda ours: public.openai(ours) | public.clip_text_tower()),
    "open_clip": (CLIP, lambda ours: public.openai(ours) | public.clip_text_tower("text.")),
    "huggingface": (CLIP, public.huggingface),
    "eva_clip": (EVA02, public.eva_clip),
    "timm": (EVA02, public.timm),
    "llm2clip": (EVA02, public.llm2clip),
    "alphaclip": (CLIP, public.alphaclip),
    "longclip": (CLIP, lambda ours: public.openai(ours) | public.clip_text_tower()),
    "fgclip": (CLIP, public.huggingface),
    "fgclip_short": (CLIP, public.huggingface),
    "pixclip": (BIASED, public.released),
}


def write(path, name, vision=None):
    """A file of the format made of a random model; gives that model."""
    default, writer = WRITERS[name]
    model = build(vision or default)
    torch.save(writer(model.state_dict()), path)
    return model


def test_every_format_is_tested():
    assert set(WRITERS) == set(FORMATS)


@pytest.mark.parametrize("name", WRITERS)
def test_a_model_written_in_a_public_format_embeds_the_same_after_import(
    name, tmp_path, images, masks
):
    original = write(tmp_path / "weights.pt", name)
    model = build(WRITERS[name][0], seed=1)
    import_weights(model, tmp_path / "weights.pt", name)
    masks = masks if FORMATS[name].has_mask else None
    with torch.no_grad():
        torch.testing.assert_close(
            model.vision(images, masks), original.vision(images, masks), atol=1e-5, rtol=0
        )
        if FORMATS[name].has_adaptor:
            texts = torch.randn(5, 12)
            torch.testing.assert_close(model.adaptor(texts), original.adaptor(texts))


@pytest.mark.parametrize("name", WRITERS)
def test_the_report_names_every_key_and_every_tensor_once(name, tmp_path):
    write(tmp_path / "weights.pt", name)
    model = build(WRITERS[name][0], seed=1)
    report = import_weights(model, tmp_path / "weights.pt", name)
    keys = [key.source for key in (*report.used, *report.dropped)]
    assert sorted(keys) == sorted(torch.load(tmp_path / "weights.pt"))
    targets = {key.target for key in report.used} | {tensor.target for tensor in report.new}
    assert targets == set(model.state_dict())
    assert all(key.reason for key in report.dropped)
    assert report.to_dict()["num_used"] == len(report.used)


@pytest.mark.parametrize("name", [n for n in WRITERS if not FORMATS[n].has_mask])
def test_without_a_mask_convolution_in_the_source_the_model_is_its_parent(
    name, tmp_path, images, masks
):
    write(tmp_path / "weights.pt", name)
    model = build(WRITERS[name][0], seed=1)
    report = import_weights(model, tmp_path / "weights.pt", name)
    assert "vision.mask_embed.weight" in {tensor.target for tensor in report.new}
    with torch.no_grad():
        assert torch.equal(model.vision(images, masks), model.vision(images))


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_key_is_refused_whichever_it_is(name, tmp_path):
    model = build(WRITERS[name][0])
    weights = WRITERS[name][1](model.state_dict())
    needed = [key.source for key in reported(model, weights, name, tmp_path).used]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for missing in (needed[0], needed[len(needed) // 2], needed[-1]):
        torch.save({key: t for key, t in weights.items() if key != missing}, tmp_path / "w.pt")
        with pytest.raises(WeightsRefused, match="missing: "):
            import_weights(model, tmp_path / "w.pt", name)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def reported(model, weights, name, folder):
    torch.save(weights, folder / "whole.pt")
    return import_weights(model, folder / "whole.pt", name)


@pytest.mark.parametrize("name", WRITERS)
def test_an_unknown_key_is_refused(name, tmp_path):
    model = build(WRITERS[name][0])
    weights = WRITERS[name][1](model.state_dict()) | {"visual.blocks.0.gamma_1": torch.ones(3)}
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(WeightsRefused, match=r"unknown: visual.blocks.0.gamma_1 \[3\]"):
        import_weights(model, tmp_path / "weights.pt", name)


@pytest.mark.parametrize("name", WRITERS)
def test_another_depth_is_refused(name, tmp_path):
    vision = WRITERS[name][0]
    write(tmp_path / "weights.pt", name, vision.changed(num_layers=4))
    with pytest.raises(WeightsRefused, match="source's tower has 4 blocks, the model's 2"):
        import_weights(build(vision), tmp_path / "weights.pt", name)


@pytest.mark.parametrize("name", WRITERS)
def test_another_number_of_positions_is_refused(name, tmp_path):
    vision = WRITERS[name][0]
    write(tmp_path / "weights.pt", name, vision.changed(image_size_px=48))
    with pytest.raises(
        WeightsRefused, match=r"\[37, 64\], vision.position_embedding is \[17, 64\]"
    ):
        import_weights(build(vision), tmp_path / "weights.pt", name)


@pytest.mark.parametrize("name", [n for n in WRITERS if not FORMATS[n].has_adaptor])
def test_another_projection_needs_a_setting(name, tmp_path, images):
    vision = WRITERS[name][0]
    write(tmp_path / "weights.pt", name)
    model = build(vision.changed(embed_dim=24), seed=1)
    before = model.vision.projection.weight.clone()
    with pytest.raises(WeightsRefused, match=r"projection.weight is \[24, 64\]"):
        import_weights(model, tmp_path / "weights.pt", name)
    report = import_weights(
        model, tmp_path / "weights.pt", name, ImportChoices(new_projection=True)
    )
    assert torch.equal(model.vision.projection.weight, before)
    assert "vision.projection.weight" in {tensor.target for tensor in report.new}
    assert any(key.reason == "a new projection was asked for" for key in report.dropped)


@pytest.mark.parametrize("name", WRITERS)
def test_a_format_of_the_other_architecture_is_refused(name, tmp_path):
    write(tmp_path / "weights.pt", name)
    other = EVA02 if FORMATS[name].kind == "clip" else CLIP
    with pytest.raises(WeightsRefused, match="architecture: "):
        import_weights(build(other), tmp_path / "weights.pt", name)


@pytest.mark.parametrize(
    ("name", "wrong"), [("timm", "eva_clip"), ("huggingface", "openai"), ("alphaclip", "open_clip")]
)
def test_the_right_format_is_told_where_another_was_asked_for(name, wrong, tmp_path):
    write(tmp_path / "weights.pt", name)
    with pytest.raises(WeightsRefused, match=f"its keys are those of '{name}'"):
        import_weights(build(WRITERS[name][0]), tmp_path / "weights.pt", wrong)


def test_the_right_format_is_not_told_where_it_was_asked_for(tmp_path):
    write(tmp_path / "weights.pt", "timm", EVA02.changed(num_layers=3))
    with pytest.raises(WeightsRefused, match="give weights, format and architecture"):
        import_weights(build(EVA02), tmp_path / "weights.pt", "timm")


HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3}


def hugging(**changes):
    """What transformers would write of our small tower, with changes."""
    tower = {"hidden_size": 64, "num_hidden_layers": 2, "patch_size": 8, "image_size": 32}
    return {"vision_config": tower | {"num_attention_heads": 1} | changes}


@pytest.mark.parametrize(
    ("name", "file", "stated", "message"),
    [
        ("openai", "open_clip_config.json", lambda: described(pixels=HALVES), "has mean=.0.5, 0.5"),
        ("openai", "open_clip_config.json", lambda: described({"pool_type": "avg"}), "pooling=avg"),
        ("openai", "config.json", lambda: hugging(hidden_act="gelu"), "activation=gelu"),
        ("alphaclip", "config.json", lambda: hugging(layer_norm_eps=1e-6), "layer_norm_eps=1e-06"),
        ("eva_clip", "open_clip_config.json", lambda: described(pixels=HALVES), "has mean=.0.5"),
    ],
)
def test_a_description_beside_the_weights_counts_whatever_the_format(
    name, file, stated, message, tmp_path
):
    write(tmp_path / "weights.pt", name)
    (tmp_path / file).write_text(json.dumps(stated()))
    with pytest.raises(WeightsRefused, match="of a model with other settings: take") as told:
        import_weights(build(WRITERS[name][0]), tmp_path / "weights.pt", name)
    assert re.search(f"{file} beside the weights.*{message}|{message}", str(told.value))


@pytest.mark.parametrize(
    ("file", "stated"),
    [
        ("open_clip_config.json", lambda: described({"width": 768}, pixels=HALVES)),
        ("open_clip_config.json", lambda: {"preprocess_cfg": HALVES}),
        ("config.json", lambda: hugging(hidden_act="gelu", hidden_size=1024)),
        ("config.json", lambda: {"hidden_act": "gelu", "model_type": "bert"}),
        ("config.json", lambda: [1, 2]),
    ],
)
def test_a_description_of_something_else_beside_the_weights_does_not_count(file, stated, tmp_path):
    write(tmp_path / "weights.pt", "openai")
    (tmp_path / file).write_text(json.dumps(stated()))
    import_weights(build(CLIP), tmp_path / "weights.pt", "openai")


def test_no_format_is_advised_that_would_not_help(tmp_path):
    write(tmp_path / "weights.pt", "openai")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described(pixels=HALVES)))
    for name in ("open_clip", "openai"):
        with pytest.raises(WeightsRefused) as told:
            import_weights(build(CLIP), tmp_path / "weights.pt", name)
        assert "its keys are right" in str(told.value)
        assert "those of" not in str(told.value)
    write(tmp_path / "weights.pt", "timm")
    with pytest.raises(
        WeightsRefused, match=r"'timm', but that does not fit either \(architecture"
    ):
        import_weights(build(CLIP), tmp_path / "weights.pt", "openai")


def test_a_checkpoint_of_ours_is_told_to_be_one(tmp_path):
    save_file(build(CLIP).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(WeightsRefused, match="a checkpoint of PixCLIP: give its folder"):
        import_weights(build(CLIP), tmp_path, "openai")


@pytest.mark.parametrize("name", ["llm2clip", "pixclip"])
def test_a_text_tower_that_pools_otherwise_than_the_adaptor_knows_is_told_of(name, tmp_path):
    vision = WRITERS[name][0]
    write(tmp_path / "weights.pt", name)
    model = build(vision)
    (told,) = import_weights(model, tmp_path / "weights.pt", name).assumed
    assert told.startswith("text.pooling=caption: the weights' text adaptor was trained on")
    text = model.config.text.changed(pooling="caption_and_end")
    model.config = model.config.changed(text=text)
    assert import_weights(model, tmp_path / "weights.pt", name).assumed == ()


def test_a_biased_mask_convolution_needs_a_tower_with_that_bias(tmp_path):
    write(tmp_path / "weights.pt", "pixclip")
    with pytest.raises(WeightsRefused, match=r"the model has no vision\.mask_embed\.bias"):
        import_weights(build(EVA02), tmp_path / "weights.pt", "pixclip")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    model = build(CLIP)
    weights = public.openai(model.state_dict())
    weights["visual.ln_post.bias"] = weights["visual.ln_post.bias"] / 0
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(WeightsRefused, match=r"not finite numbers: visual.ln_post.bias"):
        import_weights(model, tmp_path / "weights.pt", "openai")


UNUSABLE = {
    "of type float8_e4m3fn, not float64": lambda ones: ones.to(torch.float8_e4m3fn),
    "of type float8_e5m2, not float64": lambda ones: ones.to(torch.float8_e5m2),
    "of type int8, not float64": lambda ones: ones.to(torch.int8),
    "of type complex64, not float64": lambda ones: ones.to(torch.complex64),
    "sparse (torch.sparse_coo), not dense": lambda ones: ones.to_sparse(),
    "sparse (torch.sparse_csr), not dense": lambda ones: ones.to_sparse_csr(),
    "on the device meta, so that it has no numbers": lambda ones: ones.to("meta"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("what", UNUSABLE)
def test_tensors_that_cannot_be_weights_are_refused_by_what_they_are(what, tmp_path):
    model = build(CLIP)
    weights = public.openai(model.state_dict())
    for key in ("visual.proj", "visual.transformer.resblocks.0.mlp.c_fc.weight"):
        weights[key] = UNUSABLE[what](torch.ones_like(weights[key]))
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(WeightsRefused) as told:
        import_weights(model, tmp_path / "weights.pt", "openai")
    assert f"{what}" in str(told.value)
    assert len(told.value.problems) == 2
    assert "its keys are those of" not in str(told.value)


def test_a_view_larger_than_memory_is_refused_by_its_shape(tmp_path):
    torch.save({"visual.class_embedding": torch.zeros(1).expand(10**13)}, tmp_path / "weights.pt")
    with pytest.raises(WeightsRefused, match=r"visual.class_embedding \[10000000000000\]"):
        import_weights(build(CLIP), tmp_path / "weights.pt", "openai")


def test_the_description_of_another_kind_of_tower_is_no_reason_to_fail(tmp_path):
    write(tmp_path / "weights.pt", "timm")
    description = {"model_cfg": {"vision_cfg": {"timm_model_name": "eva02_base_patch16_clip_224"}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(description))
    with pytest.raises(WeightsRefused, match="its keys are those of 'timm'"):
        import_weights(build(CLIP), tmp_path / "weights.pt", "open_clip")


def described(vision=(), pixels=()):
    """What open_clip would write of our small tower, with changes."""
    tower = {"width": 64, "head_width": 64} | dict(vision)
    return {
        "model_cfg": {"quick_gelu": True, "vision_cfg": tower},
        "preprocess_cfg": {"mean": list(CLIP_MEAN), "std": list(CLIP_STD)} | dict(pixels),
    }


def test_nothing_is_assumed_where_open_clip_says_all(tmp_path):
    write(tmp_path / "weights.pt", "open_clip")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described()))
    assert import_weights(build(CLIP), tmp_path / "weights.pt", "open_clip").assumed == ()


def test_without_a_description_pixels_and_pooling_are_assumed(tmp_path):
    write(tmp_path / "weights.pt", "open_clip")
    report = import_weights(build(CLIP), tmp_path / "weights.pt", "open_clip")
    names = [fact.split("=")[0] for fact in report.assumed]
    assert names[-3:] == ["the tower's pooling", "preprocess.mean", "preprocess.std"]


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (
            described(pixels={"mean": [0.5] * 3}),
            r"mean=\(0.5, 0.5, 0.5\), preprocess.mean is \(0.48",
        ),
        (described(pixels={"std": 0.5}), r"std=0.5, preprocess.std is \(0.26"),
        ({"preprocess_cfg": {"mean": [0.5] * 3}}, r"mean=\(0.5, 0.5, 0.5\), preprocess.mean is"),
        (described({"pool_type": "avg"}), "pooling=avg, the tower's pooling is tok"),
        (described({"head_width": None}), "head_width must be whole numbers, got 64, None"),
        (described({"head_width": 0}), "head_width must be whole numbers, got 64, 0"),
        ({"model_cfg": {"vision_cfg": None}}, "vision_cfg must be a section"),
        ({"model_cfg": "ViT-B-16"}, "model_cfg must be a section of settings, got 'ViT-B-16'"),
        (described() | {"preprocess_cfg": []}, "preprocess_cfg must be a section"),
    ],
)
def test_a_description_that_differs_or_makes_no_sense_is_refused(description, message, tmp_path):
    write(tmp_path / "weights.pt", "open_clip")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(description))
    with pytest.raises(WeightsRefused, match=message):
        import_weights(build(CLIP), tmp_path / "weights.pt", "open_clip")


def test_a_model_with_the_pixel_statistics_of_the_source_takes_its_weights(tmp_path):
    write(tmp_path / "weights.pt", "open_clip")
    halves = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described(pixels=halves)))
    model = build(CLIP)
    pixels = model.config.preprocess.changed(mean=(0.5,) * 3, std=(0.5,) * 3)
    model.config = model.config.changed(preprocess=pixels)
    assert import_weights(model, tmp_path / "weights.pt", "open_clip").assumed == ()


def test_pixel_statistics_beside_timms_names_are_compared(tmp_path):
    write(tmp_path / "weights.pt", "timm")
    halves = {"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(halves))
    with pytest.raises(WeightsRefused, match=r"mean=\(0.5, 0.5, 0.5\), preprocess.mean is"):
        import_weights(build(EVA02), tmp_path / "weights.pt", "timm")


@pytest.mark.parametrize("content", ["[1]", "{", "\xff"])
def test_a_damaged_description_is_named(content, tmp_path):
    write(tmp_path / "weights.pt", "huggingface")
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(WeightsRefused, match=r"config.json is not the description of a model"):
        import_weights(build(CLIP), tmp_path / "weights.pt", "huggingface")


def test_two_keys_for_one_tensor_are_refused(tmp_path):
    model = build(EVA02)
    weights = public.llm2clip(model.state_dict())
    weights["visual.blocks.1.attn.q_bias"] = torch.zeros(64)
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(WeightsRefused, match=r"twice: .*blocks.1.attn.q_proj.bias and .*q_bias"):
        import_weights(model, tmp_path / "weights.pt", "llm2clip")


def test_openai_weights_need_quick_gelu(tmp_path):
    write(tmp_path / "weights.pt", "openai")
    with pytest.raises(WeightsRefused, match=r"activation=quick_gelu, vision\.activation is gelu"):
        import_weights(build(CLIP.changed(activation="gelu")), tmp_path / "weights.pt", "openai")


def test_half_precision_weights_become_the_models_own(tmp_path):
    model = build(CLIP)
    half = {key: t.half() for key, t in public.openai(model.state_dict()).items()}
    save_file(half, tmp_path / "weights.safetensors")
    report = import_weights(model, tmp_path / "weights.safetensors", "openai")
    assert {key.dtype for key in report.used} == {"torch.float16"}
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_a_format_that_does_not_exist_is_named_with_those_that_do(tmp_path):
    with pytest.raises(
        ValueError, match="no format 'clip' of weights; known are openai, open_clip"
    ):
        import_weights(build(CLIP), tmp_path, "clip")
