"""A checkpoint is loaded exactly or refused with a reason."""

import json
import pickle
import random
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import pixclip
from pixclip.checkpoint import CheckpointError, save_checkpoint
from pixclip.checksums import sha256_of, weights_digest, write_checksums
from tests.mutations import mutated
from tests.pixclip.tiny_models import tiny_model

TEXTS = ["a b c", "d e f g h i j"]


def seal(folder: Path) -> None:
    """Give a changed checkpoint checksums that fit, so that a later check must refuse it."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "checksums.json"]
    write_checksums(folder, [p.relative_to(folder).as_posix() for p in files])


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    seal(folder)


def change_json(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.unlink()  # it may be a hard link to a file of the fixture
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("kind", ["clip", "eva02"])
def test_a_loaded_model_is_the_saved_one(tmp_path, kind):
    model = tiny_model(kind)
    save_checkpoint(tmp_path / "saved", model)
    loaded = pixclip.load(tmp_path / "saved")
    assert loaded.config == model.config
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    images, masks = torch.randn(2, 3, 32, 32), torch.randn(2, 1, 32, 32)
    assert torch.equal(loaded.vision(images, masks), model.vision(images, masks))
    assert all(p.requires_grad for p in loaded.parameters())


def test_saving_the_same_model_twice_gives_the_same_files(tmp_path, folder, text_tower):
    save_checkpoint(
        tmp_path / "again", tiny_model(), text_tower=text_tower, notes={"recipe": "tiny"}
    )
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert len(names) > 5
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_loaded_model_reads_texts_through_its_own_text_tower(folder):
    model = pixclip.load(f"file://{folder}")
    embeddings = model.encode_text(TEXTS)
    assert embeddings.shape == (2, 24)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(model.encode_text(TEXTS[1])[0], embeddings[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("vision", {"image_size_px": 8_000_000}, "image_size_px must be at most 4096, got 8000000"),
        ("vision", {"image_size_px": 1024}, r"embedding is \[17, 32\], not \[16385, 32\]"),
        ("vision", {"image_size_px": 4096, "patch_size_px": 1}, "16777216 patches of an image"),
        ("vision", {"width": 4 * 10**6}, "vision.width must be at most 16384"),
        ("vision", {"width": 64}, r"\[17, 32\], not \[17, 64\]"),
        ("vision", {"mlp_width": 4 * 10**18}, "vision.mlp_width must be at most 131072"),
        ("vision", {"num_heads": 10**6, "width": 10**6}, "vision.width must be at most"),
        ("vision", {"embed_dim": 10**400}, "vision.embed_dim must be at most 65536, got 1000"),
        ("vision", {"layer_norm_eps": 10**400}, "vision.layer_norm_eps must be of type float"),
        ("text", {"embed_dim": 10**19}, "text.embed_dim must be at most 65536"),
        ("text", {"max_tokens": 2**40}, "text.max_tokens must be at most 1048576"),
        ("text", {"tokens_per_pass": 10**6}, "text.tokens_per_pass must be at most 262144"),
        ("text", {"prefix": "x" * 10**6}, "text.prefix must have at most 65536 characters"),
        ("vision", {"num_layers": 10**9}, "vision.num_layers must be at most 256"),
        ("vision", {"num_layers": 256}, "tensors for 257 layers"),
        ("adaptor", {"num_layers": 10**9}, "adaptor.num_layers must be at most 256"),
        ("adaptor", {"expansion": 65}, "adaptor.expansion must be at most 64"),
    ],
)
def test_a_configuration_cannot_ask_for_more_than_its_weights_hold(
    folder, section, change, message
):
    change_json(folder / "config.json", lambda config: config[section].update(change))
    seal(folder)
    with pytest.raises(CheckpointError, match=message):
        pixclip.load(folder)


def test_half_precision_weights_load_as_float32_unless_asked_otherwise(tmp_path):
    save_checkpoint(tmp_path / "saved", tiny_model().to(torch.bfloat16))
    assert {p.dtype for p in pixclip.load(tmp_path / "saved").parameters()} == {torch.float32}
    half = pixclip.load(tmp_path / "saved", dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_what_a_pipeline_adds_to_the_folder_does_not_matter(folder, tmp_path, text_tower):
    (folder / "_receipt.json").write_text("{}")
    (folder / "README.md").write_text("a card")
    assert pixclip.load(folder).encode_text(TEXTS).shape == (2, 24)
    (text_tower / "_receipt.json").write_text("{}")
    save_checkpoint(tmp_path / "other", tiny_model(), text_tower=text_tower)
    assert not (tmp_path / "other" / "text_tower" / "_receipt.json").exists()


def test_saving_over_a_checkpoint_leaves_nothing_of_the_old_one(folder):
    (folder / "_work").mkdir()
    save_checkpoint(folder, tiny_model("eva02"))
    assert pixclip.load(folder).config.vision.kind == "eva02"
    assert not (folder / "text_tower").exists()


def test_a_checkpoint_can_be_saved_again_with_its_own_text_tower(folder, text_tower):
    expected = pixclip.load(folder).encode_text(TEXTS)
    tower = folder / "text_tower"
    save_checkpoint(folder, pixclip.load(folder), text_tower=tower, notes={"recipe": "again"})
    assert torch.equal(pixclip.load(folder).encode_text(TEXTS), expected)
    assert not list(folder.glob(".draft-*"))


def test_a_text_tower_that_is_not_there_leaves_the_old_checkpoint(folder, tmp_path):
    with pytest.raises(FileNotFoundError):
        save_checkpoint(folder, tiny_model("eva02"), text_tower=tmp_path / "nothing")
    assert pixclip.load(folder).config.vision.kind == "clip"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "text_tower.json"])
def test_damage_of_a_text_tower_is_not_sealed_by_the_checkpoint_that_takes_it_over(
    folder, tmp_path, name
):
    content = bytearray((folder / "text_tower" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "text_tower" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"text_tower/{name} is damaged or was altered"):
        save_checkpoint(tmp_path / "next", tiny_model(), text_tower=folder / "text_tower")
    assert not (tmp_path / "next" / "checksums.json").exists()


def test_a_text_tower_is_linked_only_if_asked(tmp_path, text_tower):
    for link in (False, True):
        save_checkpoint(tmp_path / str(link), tiny_model(), text_tower=text_tower, link=link)
        mine = tmp_path / str(link) / "text_tower" / "config.json"
        assert mine.samefile(text_tower / "config.json") == link


def test_saving_after_a_killed_save_leaves_nothing_of_it(folder, text_tower):
    (folder / ".draft-killed" / "text_tower").mkdir(parents=True)
    save_checkpoint(folder, tiny_model(), text_tower=text_tower)
    assert not list(folder.glob(".*"))


def test_a_killed_save_leaves_no_checkpoint(folder, monkeypatch):
    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pixclip.checkpoint.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder, tiny_model())
    with pytest.raises(CheckpointError, match="incomplete"):
        pixclip.load(folder)


def test_the_digest_of_the_weights_is_that_of_their_file(folder):
    assert weights_digest(folder) == sha256_of(folder / "model.safetensors")


def test_a_missing_key_is_refused(folder):
    change_weights(folder, lambda weights: weights.pop("vision.mask_embed.weight"))
    with pytest.raises(CheckpointError, match=r"1 differences: missing vision\.mask_embed\.weight"):
        pixclip.load(folder)


def test_an_extra_key_is_refused(folder):
    change_weights(folder, lambda weights: weights.update(spare=torch.zeros(1)))
    with pytest.raises(CheckpointError, match="unexpected spare"):
        pixclip.load(folder)


def test_a_wrong_shape_or_type_is_refused(folder):
    shorter, integers = torch.zeros(3), torch.zeros(32, dtype=torch.int64)
    change_weights(
        folder,
        lambda weights: weights.update(
            {"vision.class_embedding": shorter, "vision.norm_post.bias": integers}
        ),
    )
    with pytest.raises(CheckpointError, match=r"2 differences.*\[3\].*\[32\].*int64"):
        pixclip.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "notes.json"])
def test_an_altered_byte_is_refused(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is damaged or was altered"):
        pixclip.load(folder)


def test_a_lost_file_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        pixclip.load(folder)


def test_checksums_that_leave_the_weights_out_are_refused(folder):
    change_json(folder / "checksums.json", lambda sums: sums.pop("model.safetensors"))
    with pytest.raises(CheckpointError, match=r"does not list model\.safetensors"):
        pixclip.load(folder)


def test_an_unknown_setting_is_refused(folder):
    change_json(folder / "config.json", lambda config: config["vision"].update(depth=3))
    seal(folder)
    with pytest.raises(CheckpointError, match="vision: unknown settings depth"):
        pixclip.load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 5000 + b"]" * 5000, "nested more than 64 deep"),
        (b"\xff\xfe{}", "it is no JSON"),
        (b"null", "must hold an object"),
        (b'{"vision": 1, "vision": 2}', "'vision' is there twice"),
        (b'{"vision": [], "text": {}}', r"vision must be a section of settings, got \[\]"),
        (b'{"text": {"embed_dim": 3}}', "missing settings vision"),
    ],
)
def test_a_configuration_that_is_none_is_refused_by_its_file(folder, content, message):
    (folder / "config.json").write_bytes(content)
    seal(folder)
    with pytest.raises(CheckpointError, match=rf"config\.json.*{message}.*another checkpoint"):
        pixclip.load(folder)


@pytest.mark.parametrize(
    "content", [b"[" * 5000, b'{"a":' * 5000, b"\xff", b'{"' + b"n" * 5000 + b'": "x"}']
)
def test_checksums_that_are_no_checksums_are_refused_in_a_short_message(folder, content):
    (folder / "checksums.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checksums\.json") as told:
        pixclip.load(folder)
    assert len(str(told.value)) < 800


def test_a_link_that_leads_around_is_refused(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(CheckpointError, match="leads out of the folder through a link"):
        pixclip.load(folder)


def test_a_damaged_file_of_any_kind_is_told_as_damage_by_its_name(folder):
    """Bits flipped, bytes lost and repeated, with checksums that fit: 120 checkpoints."""
    draw, outcomes = random.Random(0), set()
    names = ["config.json", "model.safetensors", "checksums.json", "notes.json"]
    whole = {name: (folder / name).read_bytes() for name in names}
    for turn in range(120):
        name = names[turn % len(names)]
        for other, content in whole.items():
            (folder / other).write_bytes(content)
        (folder / name).write_bytes(mutated(whole[name], draw))
        if name != "checksums.json" and turn % 8 >= 4:
            seal(folder)
        try:
            pixclip.load(folder)
            outcomes.add("loaded")
        except CheckpointError as error:
            is_told = str(folder) in str(error) and len(str(error)) < 4000
            outcomes.add("refused" if is_told else f"{name}: {error}")
    assert outcomes == {"loaded", "refused"}


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../secret", "..", "a\\b", "a//b", "./a", ""]
)
def test_a_path_that_is_not_plainly_relative_is_refused(folder, name):
    change_json(folder / "checksums.json", lambda sums: sums.update({name: "0" * 64}))
    with pytest.raises(CheckpointError, match="no SHA-256 of a file inside"):
        pixclip.load(folder)


@pytest.mark.parametrize("content", ["[]", "{", '{"config.json": 5}', '{"config.json": "abc"}'])
def test_checksums_in_another_form_are_refused(folder, content):
    (folder / "checksums.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"checksums\.json"):
        pixclip.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "text_tower"])
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        pixclip.load(folder)


class Bomb:
    """What a pickle can do: run a function when it is read."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize(
    "save", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))]
)
def test_a_pickle_is_never_read(folder, tmp_path, save):
    save(Bomb(), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="is a file"):
        pixclip.load(tmp_path / "model.pt")
    shutil.copy(tmp_path / "model.pt", folder / "model.safetensors")
    seal(folder)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        pixclip.load(folder)


def test_a_safetensors_header_that_promises_too_much_is_refused(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    seal(folder)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        pixclip.load(folder)


def test_a_folder_that_is_not_there_is_told_apart_from_one_that_is_no_checkpoint(tmp_path):
    for place in (tmp_path / "nothing", "models:/pixclip@champion"):
        with pytest.raises(CheckpointError, match=r"no folder .*pixclip fetch"):
            pixclip.load(place)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"checksums\.json cannot be read"):
        pixclip.load(tmp_path)


def test_an_altered_text_tower_is_refused_when_a_text_comes(folder):
    change_json(folder / "text_tower" / "tokenizer.json", lambda tokenizer: tokenizer.update(a=1))
    model = pixclip.load(folder)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        model.encode_text("a b")


def test_a_file_added_to_the_text_tower_is_refused(folder):
    (folder / "text_tower" / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"does not list text_tower/adapter_config\.json"):
        pixclip.load(folder).encode_text("a b")


def test_a_text_tower_of_other_settings_than_the_models_is_refused(folder):
    change_json(folder / "config.json", lambda config: config["text"].update(prefix="c d"))
    seal(folder)
    with pytest.raises(CheckpointError, match="trained on another text tower"):
        pixclip.load(folder).encode_text("a b")
