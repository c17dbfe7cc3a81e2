"""Public weights bring CLIP's own text tower too, equal to transformers' and open_clip's."""

import json

import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextModelWithProjection
from transformers import CLIPTextConfig as HuggingFaceText

from pixclip.importers import FORMATS, ImportChoices, WeightsRefused, import_weights
from pixclip.text.clip_tower import stretch_positions
from tests.pixclip.importers import public_formats as public
from tests.pixclip.importers.conftest import CLIP, CLIP_TEXT, EVA02, LONG_TEXT, build
from tests.pixclip.importers.test_huggingface import disturbed, vision_config

GELU_TEXT = CLIP_TEXT.changed(activation="gelu")


def write_huggingface(ours):
    return public.huggingface_tower(ours) | public.huggingface_text(ours)


def write_fgclip(ours, *, is_long):
    return public.fgclip(ours, public.huggingface_text(ours), is_long=is_long)


def write_alphaclip(ours):
    return public.alphaclip(ours)


WRITERS = {
    "openai": (CLIP, CLIP_TEXT, lambda ours: public.openai(ours) | public.openai_text(ours)),
    "open_clip": (
        CLIP,
        GELU_TEXT,
        lambda ours: public.openai(ours) | public.openai_text(ours, "text."),
    ),
    "huggingface": (CLIP, CLIP_TEXT, write_huggingface),
    "longclip": (CLIP, LONG_TEXT, public.longclip),
    "fgclip": (CLIP, LONG_TEXT, lambda ours: write_fgclip(ours, is_long=True)),
    "fgclip_short": (CLIP, CLIP_TEXT, lambda ours: write_fgclip(ours, is_long=False)),
    "eva_clip": (
        EVA02,
        GELU_TEXT,
        lambda ours: public.eva_clip(ours, text=public.openai_text(ours, "text.")),
    ),
    "timm": (
        EVA02,
        GELU_TEXT,
        lambda ours: public.timm(ours, text=public.openai_text(ours, "text.")),
    ),
}


def whole(model):
    """A model's tensors with one table of text positions."""
    state = dict(model.state_dict())
    if "text.fixed_positions" in state:
        table = [state.pop("text.fixed_positions"), state["text.position_embedding"]]
        state["text.position_embedding"] = torch.cat(table)
    return state


def ids(length=9):
    """A text of that length with its end marker, and a short one filled up with end markers."""
    words = [number * 7 % 37 for number in range(length - 2)]
    return torch.tensor([[38, *words, 39], [38, 5, *[39] * (length - 2)]])


def test_every_format_that_has_a_text_tower_is_tested():
    assert set(WRITERS) == {name for name, format_ in FORMATS.items() if format_.text_uses}


@pytest.mark.parametrize("name", WRITERS)
@torch.no_grad()
def test_a_model_written_in_a_public_format_reads_images_and_texts_the_same_after_import(
    name, tmp_path, images
):
    vision, text, writer = WRITERS[name]
    original, model = build(vision, text=text), build(vision, seed=1, text=text)
    weights = writer(whole(original))
    torch.save(weights, tmp_path / "weights.pt")
    report = import_weights(model, tmp_path / "weights.pt", name)
    token_ids = ids(60 if text is LONG_TEXT else 9)
    torch.testing.assert_close(model.vision(images), original.vision(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.text(token_ids), original.text(token_ids), atol=1e-5, rtol=0)
    named = {key.source for key in (*report.used, *report.dropped)}
    assert named == set(weights)
    targets = {key.target for key in report.used} | {tensor.target for tensor in report.new}
    assert targets == set(whole(model))


@pytest.mark.parametrize("name", WRITERS)
def test_a_model_of_a_language_model_drops_the_text_tower_by_name(name, tmp_path):
    vision, text, writer = WRITERS[name]
    torch.save(writer(whole(build(vision, text=text))), tmp_path / "weights.pt")
    report = import_weights(build(vision), tmp_path / "weights.pt", name)
    reasons = {key.source: key.reason for key in report.dropped}
    texts = [key for key, reason in reasons.items() if "read by a language model here" in reason]
    assert len(texts) >= 2 + 12 * text.num_layers


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_key_of_the_text_tower_is_refused(name, tmp_path):
    vision, text, writer = WRITERS[name]
    model = build(vision, text=text)
    weights = writer(whole(model))
    torch.save(weights, tmp_path / "weights.pt")
    report = import_weights(model, tmp_path / "weights.pt", name)
    needed = [key.source for key in report.used if key.target.startswith("text.")]
    for missing in (needed[0], needed[len(needed) // 2], needed[-1]):
        torch.save({key: t for key, t in weights.items() if key != missing}, tmp_path / "w.pt")
        with pytest.raises(WeightsRefused, match="missing: "):
            import_weights(model, tmp_path / "w.pt", name)


def clip_model(**text) -> CLIPModel:
    """transformers' whole model, small, with random numbers everywhere."""
    described = HuggingFaceText(
        vocab_size=40,
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=1,
        max_position_embeddings=77,
        **({"eos_token_id": 2} | text),
    )
    config = CLIPConfig(
        vision_config=vision_config(CLIP).to_dict(),
        text_config=described.to_dict(),
        projection_dim=CLIP.embed_dim,
    )
    return disturbed(CLIPModel(config))


@torch.no_grad()
def test_images_and_texts_equal_those_of_transformers_clip_model(tmp_path, images):
    peer = clip_model()
    peer.save_pretrained(tmp_path)
    CLIPImageProcessor().save_pretrained(tmp_path)
    model = build(CLIP, text=CLIP_TEXT)
    report = import_weights(model, tmp_path, "huggingface")
    theirs = [peer.get_image_features(images), peer.get_text_features(ids())]
    theirs = [getattr(one, "pooler_output", one) for one in theirs]
    for ours, peers in zip((model.vision(images), model.text(ids())), theirs, strict=True):
        torch.testing.assert_close(ours, peers, atol=1e-5, rtol=1e-5)
    assert report.assumed == ()


@pytest.mark.parametrize("name", ["longclip", "fgclip"])
@torch.no_grad()
def test_the_two_tables_of_long_texts_are_read_as_the_public_code_adds_them(name, tmp_path):
    """The sum of both tables, each behind a mask, in transformers' tower."""
    original = build(CLIP, text=LONG_TEXT)
    weights = WRITERS[name][2](whole(original))
    torch.save(weights, tmp_path / "weights.pt")
    model = build(CLIP, seed=1, text=LONG_TEXT)
    import_weights(model, tmp_path / "weights.pt", name)
    is_first = (torch.arange(248) < 20)[:, None]
    if name == "longclip":
        first, res = weights["positional_embedding"], weights["positional_embedding_res"]
    else:
        table = "text_model.embeddings.position_embedding"
        first, res = weights[f"{table}_ori.weight"], weights[f"{table}_res.weight"]
    masked = first * is_first + res * ~is_first
    peer = CLIPTextModelWithProjection(
        HuggingFaceText(
            vocab_size=40,
            hidden_size=64,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=1,
            max_position_embeddings=248,
            projection_dim=16,
            eos_token_id=39,
        )
    )
    text = public.huggingface_text(whole(original))
    text.pop("text_model.embeddings.position_ids")
    text["text_model.embeddings.position_embedding.weight"] = masked
    peer.load_state_dict(text, strict=True)
    token_ids = ids(100)
    theirs = peer.eval()(input_ids=token_ids).text_embeds
    torch.testing.assert_close(model.text(token_ids), theirs, atol=1e-5, rtol=1e-5)


def test_the_rows_that_are_kept_apart_come_from_the_first_table(tmp_path):
    original = build(CLIP, text=LONG_TEXT)
    torch.save(public.longclip(whole(original)), tmp_path / "weights.pt")
    model = build(CLIP, seed=1, text=LONG_TEXT)
    import_weights(model, tmp_path / "weights.pt", "longclip")
    assert torch.equal(model.text.fixed_positions, original.text.fixed_positions)
    assert torch.equal(model.text.positions(), original.text.positions())


def test_texts_of_77_are_stretched_to_248_where_that_is_asked_for(tmp_path):
    original = build(CLIP, text=CLIP_TEXT)
    torch.save(WRITERS["openai"][2](whole(original)), tmp_path / "weights.pt")
    model = build(CLIP, seed=1, text=LONG_TEXT)
    with pytest.raises(WeightsRefused, match=r"texts of 77 and 248 tokens.*77 can be stretched"):
        import_weights(model, tmp_path / "weights.pt", "openai")
    choices = ImportChoices(stretch_positions=True)
    report = import_weights(model, tmp_path / "weights.pt", "openai", choices)
    stretched = stretch_positions(original.text.position_embedding)
    assert torch.equal(model.text.positions(), stretched)
    assert report.changed == (
        "text.position_embedding: 77 rows became 248, the first 20 rows kept",
    )


@torch.no_grad()
def test_alphaclip_takes_its_text_tower_from_its_parents_file(tmp_path, images, masks):
    original, parent = build(CLIP, text=CLIP_TEXT), build(CLIP, seed=2, text=CLIP_TEXT)
    torch.save(public.alphaclip(whole(original)), tmp_path / "alpha.pth")
    torch.save(WRITERS["openai"][2](whole(parent)), tmp_path / "ViT.pt")
    model = build(CLIP, seed=1, text=CLIP_TEXT)
    with pytest.raises(WeightsRefused, match=r"nothing in the source becomes text\.blocks"):
        import_weights(model, tmp_path / "alpha.pth", "alphaclip")
    choices = ImportChoices(text_path=tmp_path / "ViT.pt")
    report = import_weights(model, tmp_path / "alpha.pth", "alphaclip", choices)
    torch.testing.assert_close(model.vision(images, masks), original.vision(images, masks))
    torch.testing.assert_close(model.text(ids()), parent.text(ids()))
    with pytest.raises(ValueError, match="text_path is for a model with CLIP's own"):
        import_weights(build(CLIP), tmp_path / "alpha.pth", "alphaclip", choices)
    assert (report.text_format, report.text_file) == ("openai", "ViT.pt")
    assert len(report.text_sha256) == 64
    reasons = {key.source: key.reason for key in report.dropped}
    assert reasons["visual.proj"] == "only the text tower was asked for"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "has activation=gelu, text.activation is quick_gelu"),
        ({"num_attention_heads": 2}, "has num_heads=2, text.num_heads is 1"),
        ({"layer_norm_eps": 1e-6}, "has layer_norm_eps=1e-06, text.layer_norm_eps"),
        ({"eos_token_id": 7}, "has end_token_id=7, text.end_token_id is 39"),
    ],
)
def test_what_transformers_states_of_a_text_tower_is_compared(change, message, tmp_path):
    clip_model().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["text_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsRefused, match=message):
        import_weights(build(CLIP, text=CLIP_TEXT), tmp_path, "huggingface")
    import_weights(build(CLIP), tmp_path, "huggingface")  # a language model reads its texts


@pytest.mark.parametrize(
    ("tower", "change", "message"),
    [
        ("text_cfg", {"heads": 2}, "has num_heads=2, text.num_heads is 1"),
        (
            "text_cfg",
            {"act_kwargs": {"approximate": "tanh"}},
            "activation=gelu with {'approximate'",
        ),
        ("text_cfg", {"norm_kwargs": {"eps": 1e-6}}, "has layer_norm_eps=1e-06"),
        ("text_cfg", {"no_causal_mask": True}, "text_cfg.no_causal_mask=True, only False is known"),
        ("text_cfg", {"pool_type": "last"}, "text_cfg.pool_type='last'"),
        ("text_cfg", {"pool_type": "eos", "eos_id": 5}, "has end_token_id=5"),
        ("vision_cfg", {"no_ln_pre": True}, "vision_cfg.no_ln_pre=True, only False is known"),
        ("vision_cfg", {"act_kwargs": {"approximate": "tanh"}}, "activation=gelu with"),
        ("vision_cfg", {"norm_kwargs": {"eps": 1e-6}}, "has layer_norm_eps=1e-06"),
        ("vision_cfg", {"image_size": 48}, "has image_size_px=48, vision.image_size_px is 32"),
        ("vision_cfg", {"image_size": [32, 32]}, ""),
    ],
)
def test_what_open_clip_states_beyond_shapes_is_compared(tower, change, message, tmp_path):
    vision = CLIP.changed(activation="gelu")
    original = build(vision, text=GELU_TEXT)
    torch.save(WRITERS["open_clip"][2](whole(original)), tmp_path / "weights.pt")
    described = {
        "vision_cfg": {"width": 64, "head_width": 64, "image_size": 32},
        "text_cfg": {"width": 64, "heads": 1},
    }
    described[tower] |= change
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": described}))
    model = build(vision, seed=1, text=GELU_TEXT)
    if not message:
        import_weights(model, tmp_path / "weights.pt", "open_clip")
        return
    with pytest.raises(WeightsRefused) as told:
        import_weights(model, tmp_path / "weights.pt", "open_clip")
    assert message in str(told.value)
