"""A checkpoint with CLIP's own text tower reads texts by itself; older ones load as before."""

import json

import pytest
import torch

import pixclip
from pixclip.checkpoint import CheckpointError, save_checkpoint
from pixclip.config import ModelConfig, TextConfig, from_dict, to_dict
from pixclip.text.clip_tokenizer import ClipTokenizer
from pixclip.text.embeddings import OtherTextTower, require_same_tower
from tests.pixclip.test_checkpoint import change_json, seal
from tests.pixclip.tiny_models import CLIP_TEXT, VISION, save_clip_tokenizer, tiny_clip

TEXTS = ["the red car", "on the thing " * 9, "a"]


@pytest.fixture
def saved(tmp_path):
    tokenizer = ClipTokenizer.open(save_clip_tokenizer(tmp_path / "public"), CLIP_TEXT)
    tokenizer.save(tmp_path / "text_tower")
    model = tiny_clip(num_fixed_positions=3)
    save_checkpoint(tmp_path / "saved", model, text_tower=tmp_path / "text_tower")
    return tmp_path / "saved"


def test_a_loaded_model_is_the_saved_one_and_needs_no_other_folder(saved, tmp_path, caplog):
    for name in ("public", "text_tower"):
        (tmp_path / name).rename(tmp_path / f"gone_{name}")
    model, original = pixclip.load(saved), tiny_clip(num_fixed_positions=3)
    assert model.config == original.config
    for name, weight in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    embeddings = model.encode_text(TEXTS)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    assert "1 of 3 texts are longer than the 16 tokens" in caplog.text
    for text, embedding in zip(TEXTS, embeddings, strict=True):
        torch.testing.assert_close(model.encode_text(text)[0], embedding, atol=1e-6, rtol=0)


def test_what_a_trainer_calls_gives_what_encode_text_gives(saved):
    model = pixclip.load(saved)
    token_ids = ClipTokenizer.open(saved / "text_tower", model.config.text)(TEXTS)
    trained = model.text_tower(token_ids)
    assert trained.requires_grad
    normalised = torch.nn.functional.normalize(trained, dim=-1)
    torch.testing.assert_close(normalised, model.encode_text(TEXTS), atol=1e-6, rtol=0)


def test_there_is_no_adaptor_for_pooled_states(saved):
    model = pixclip.load(saved)
    assert not [name for name in model.state_dict() if name.startswith("adaptor")]
    with pytest.raises(ValueError, match=r"tiny_clip.*by CLIP's own text transformer"):
        model.embed_pooled(torch.zeros(1, 24))


def test_cached_embeddings_of_a_language_model_are_no_texts_of_such_a_model(saved, tmp_path):
    with pytest.raises(OtherTextTower, match="reads texts by CLIP's own text tower"):
        require_same_tower(tmp_path, saved)


def test_an_altered_or_foreign_tokenizer_is_refused_when_a_text_comes(saved):
    path = saved / "text_tower" / "tokenizer.json"
    change_json(path, lambda tokenizer: tokenizer["added_tokens"].clear())
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        pixclip.load(saved).encode_text("a")
    change_json(path, lambda tokenizer: tokenizer["model"]["vocab"].pop("<|endoftext|>"))
    seal(saved)
    with pytest.raises(CheckpointError, match="text tower cannot be opened"):
        pixclip.load(saved).encode_text("a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "bert"}, "text.kind must be one of language_model, clip, got bert"),
        ({"width": 4096}, "28 differences"),
        ({"num_layers": 256}, "tensors for 258 layers"),
        ({"context_length": 10**9}, "text.context_length must be at most 65536"),
        ({"embed_dim": 3}, "text: unknown settings embed_dim; known are kind, context_length"),
        ({"num_heads": 5}, "text.width must be a multiple of num_heads=5"),
    ],
)
def test_a_configuration_of_other_weights_is_refused(saved, change, message):
    change_json(saved / "config.json", lambda config: config["text"].update(change))
    seal(saved)
    with pytest.raises(CheckpointError, match=message):
        pixclip.load(saved)


def test_a_checkpoint_from_before_there_were_kinds_is_of_a_language_model(folder):
    change_json(folder / "config.json", lambda config: config["text"].pop("kind"))
    change_json(folder / "text_tower/text_tower.json", lambda tower: tower["config"].pop("kind"))
    seal(folder)
    model = pixclip.load(folder)
    assert isinstance(model.config.text, TextConfig)
    assert model.encode_text("a b").shape == (1, 24)


def test_the_adaptor_belongs_to_a_language_model_alone():
    data = to_dict(tiny_clip().config)
    assert from_dict(ModelConfig, json.loads(json.dumps(data))).text == CLIP_TEXT
    data["adaptor"] = {"num_layers": 1}
    with pytest.raises(ValueError, match=r"adaptor must be null for text\.kind clip"):
        from_dict(ModelConfig, data)
    with pytest.raises(ValueError, match=r"for no other, got None for language_model"):
        ModelConfig(vision=VISION["clip"], text=TextConfig(embed_dim=4), adaptor=None)
