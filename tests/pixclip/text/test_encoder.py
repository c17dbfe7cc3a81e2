"""The text encoder: both directions, pooling, and vectors that do not depend on the batch."""

import contextlib
import json
import random
import shutil

import pytest
import torch
from transformers import AutoTokenizer

from pixclip.config import TextConfig
from pixclip.text import encoder as encoder_module
from pixclip.text.encoder import TextEncoder, read_text_tower, save_text_tower
from pixclip.text.language_model import open_language_model, read_both_ways
from tests.language_models import (
    CAPTIONS,
    WIDTH,
    save_language_model,
    save_text_tower_of,
    varied_texts,
)
from tests.mutations import mutated


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def tower(base, tmp_path_factory):
    return save_text_tower_of(base, tmp_path_factory.mktemp("tower") / "text_tower", max_tokens=64)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "qwen3"])
def test_a_later_token_changes_an_earlier_position(kind, tmp_path):
    model = open_language_model(save_language_model(tmp_path, kind), with_head=False)
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])
    hidden = read_both_ways(model, ids, torch.ones_like(ids, dtype=torch.bool))
    assert not torch.allclose(hidden[0, 0], hidden[1, 0])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "qwen3"])
def test_the_lowest_layers_read_as_within_the_whole_model_and_survive_saving(kind, tmp_path):
    source = save_language_model(tmp_path / "model", kind)
    whole = open_language_model(source, with_head=False)
    lowest = open_language_model(source, with_head=False, num_layers=1)
    lowest.save_pretrained(tmp_path / "lowest")
    again = open_language_model(tmp_path / "lowest", with_head=False)
    ids = torch.tensor([[5, 6, 7, 8]])
    sees = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    states = whole(ids, attention_mask=sees, output_hidden_states=True).hidden_states
    expected = whole.norm(states[1])
    for model in (lowest, again):
        hidden = read_both_ways(model, ids, torch.ones_like(ids, dtype=torch.bool))
        torch.testing.assert_close(hidden, expected)


def test_more_layers_than_there_are_cannot_be_kept(base):
    with pytest.raises(ValueError, match="has 2 layers, num_layers is 3"):
        open_language_model(base, with_head=False, num_layers=3)


def test_padding_changes_nothing(base):
    model = open_language_model(base, with_head=False)
    ids, longer = torch.tensor([[5, 6, 7]]), torch.tensor([[5, 6, 7, 0, 0]])
    plain = read_both_ways(model, ids, torch.ones_like(ids, dtype=torch.bool))
    padded = read_both_ways(model, longer, torch.tensor([[True, True, True, False, False]]))
    torch.testing.assert_close(padded[:, :3], plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vector_depends_neither_on_the_number_nor_on_the_order_of_texts(tower, dtype):
    encoder = TextEncoder.open(tower, dtype=dtype)
    texts = list(varied_texts(64))
    together = encoder.encode(texts)
    alone = torch.cat([encoder.encode([text]) for text in texts])
    assert torch.equal(together, alone)
    order = random.Random(0).sample(range(64), 64)
    assert torch.equal(encoder.encode([texts[place] for place in order]), together[order])


def test_vectors_are_bfloat16_values_in_float32(tower):
    vectors = TextEncoder.open(tower).encode(CAPTIONS)
    assert vectors.shape == (len(CAPTIONS), WIDTH)
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, vectors.bfloat16().float())


def test_a_vector_is_the_mean_over_the_captions_own_tokens(tmp_path):
    base = save_language_model(tmp_path / "base", start_token="<start>")
    config = {"prefix": "a red car ", "suffix": " on the left"}
    encoder = TextEncoder.open(save_text_tower_of(base, tmp_path / "tower", **config))
    tokenizer = AutoTokenizer.from_pretrained(base)
    head, caption, tail = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (config["prefix"], "a small brown dog", config["suffix"])
    )
    ids = torch.tensor([[2, *head, *caption, *tail]])
    model = open_language_model(base, with_head=False)
    hidden = read_both_ways(model, ids, torch.ones_like(ids, dtype=torch.bool))
    start = 1 + len(head)
    expected = hidden[0, start : start + len(caption)].mean(dim=0)
    found = encoder.encode(["a small brown dog"])[0]
    torch.testing.assert_close(found, expected.bfloat16().float(), atol=1e-2, rtol=1e-2)


def test_a_long_caption_is_cut_and_says_so(base, caplog):
    model = open_language_model(base, with_head=False)
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = TextConfig(embed_dim=WIDTH, max_tokens=12, suffix=" dog")
    encoder = TextEncoder(model, tokenizer, config)
    short, long = encoder.tokenize(["a dog", CAPTIONS[1]])
    assert not short.is_truncated
    assert long.is_truncated
    assert len(long.ids) == 12
    assert long.ids[long.stop :] == short.ids[short.stop :] != ()
    whole = encoder.encode([CAPTIONS[1], CAPTIONS[1] + " And more of it.", "a dog"])
    assert "2 of 3 texts are longer than the 12 tokens" in caplog.text
    assert torch.equal(whole[0], whole[1])


def test_texts_longer_than_512_tokens_are_taken_where_the_tower_allows_them(base, tmp_path):
    encoder = TextEncoder.open(save_text_tower_of(base, tmp_path / "tower", max_tokens=700))
    text = " ".join(CAPTIONS * 12)
    (caption,) = encoder.tokenize([text])
    assert 512 < len(caption.ids) <= 700
    assert encoder.encode([text, text + " dog"]).shape == (2, WIDTH)


def test_texts_that_look_alike_in_unicode_have_one_vector(tower):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    vectors = TextEncoder.open(tower).encode([composed, decomposed])
    assert torch.equal(vectors[0], vectors[1])


def test_opening_and_saving_a_tower_shows_no_bars(tower, tmp_path, capfd):
    from transformers.utils import logging

    encoder = TextEncoder.open(tower)
    save_text_tower(tmp_path / "again", encoder._body, encoder._tokenizer, encoder.config, {})
    assert "%" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled(), "other uses of transformers keep theirs"


def test_vectors_can_train_an_adaptor(tower):
    vectors = TextEncoder.open(tower).encode(CAPTIONS)
    torch.nn.Linear(WIDTH, 2)(vectors).sum().backward()


def test_a_tower_that_leads_to_another_model_is_refused(tower, tmp_path):
    folder = shutil.copytree(tower, tmp_path / "tower")
    leads_to = {"peft_type": "LORA", "base_model_name_or_path": "someone/else"}
    (folder / "adapter_config.json").write_text(json.dumps(leads_to))
    with pytest.raises(ValueError, match=r"adapter_config.json; a text tower has no adapters"):
        TextEncoder.open(folder)


@pytest.mark.parametrize("kind", ["llama", "of_its_own"])
def test_code_beside_the_weights_is_not_run(tower, tmp_path, kind):
    folder = shutil.copytree(tower, tmp_path / "tower")
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'boom')!r})\n")
    for name, key in (("config.json", "AutoModel"), ("tokenizer_config.json", "AutoTokenizer")):
        content = json.loads((folder / name).read_text())
        content["auto_map"] = {"AutoConfig": "code.Config", key: "code.Kind"}
        content["model_type"] = kind
        (folder / name).write_text(json.dumps(content))
    with contextlib.suppress(ValueError):
        TextEncoder.open(folder)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"config": {}, "provenance": 3}', "no JSON"])
def test_a_description_in_another_form_is_refused(tmp_path, content):
    (tmp_path / "text_tower.json").write_text(content)
    with pytest.raises(ValueError, match="is no text tower"):
        read_text_tower(tmp_path)


def test_an_empty_text_is_refused_with_its_position(tower):
    with pytest.raises(ValueError, match="text 1 is empty"):
        TextEncoder.open(tower).encode(["a dog", ""])


def test_half_a_character_is_refused_with_its_position(tower):
    with pytest.raises(ValueError, match=r"text 1: no Unicode: '\\ud800' at 2 is half"):
        TextEncoder.open(tower).encode(["a dog", "a \ud800"])


def test_no_texts_have_no_vectors(tower):
    assert TextEncoder.open(tower).encode([]).shape == (0, WIDTH)


def test_a_folder_without_its_description_is_refused(base):
    with pytest.raises(ValueError, match=r"no text tower.*adapt-text"):
        read_text_tower(base)


def test_a_tower_with_a_missing_weight_is_refused(tower, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(tower, tmp_path / "tower")
    path = tmp_path / "tower" / "model.safetensors"
    weights = load_file(path)
    weights.pop("layers.1.mlp.up_proj.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weight.*layers.1.mlp.up_proj.weight"):
        TextEncoder.open(tmp_path / "tower")


def test_pickled_weights_are_not_read(tower, tmp_path):
    import shutil

    from safetensors.torch import load_file

    shutil.copytree(tower, tmp_path / "tower")
    path = tmp_path / "tower" / "model.safetensors"
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()
    with pytest.raises(OSError, match="safetensors"):
        TextEncoder.open(tmp_path / "tower")


def shard(folder, write):
    """Bring the weights into a file of another name, to which an index leads."""
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    path.unlink()
    name = write(weights)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_weights_in_several_files_are_read(tower, tmp_path):
    folder = shutil.copytree(tower, tmp_path / "tower")
    shard(folder, lambda weights: save_part(weights, folder, "part.safetensors"))
    whole = TextEncoder.open(tower).encode(CAPTIONS)
    assert torch.equal(TextEncoder.open(folder).encode(CAPTIONS), whole)


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "weights.bin", "sub/a.safetensors"])
def test_an_index_that_leads_to_anything_but_safetensors_of_its_folder_is_refused(
    tower, tmp_path, name
):
    folder = shutil.copytree(tower, tmp_path / "tower")
    (folder / "sub").mkdir()
    shard(folder, lambda weights: save_part(weights, folder, name))
    with pytest.raises(ValueError, match=rf"index.json names '{name}'.* in the same folder"):
        TextEncoder.open(folder)


def save_part(weights, folder, name) -> str:
    from safetensors.torch import save_file

    if name.endswith(".bin"):
        torch.save(weights, folder / name)
    else:
        save_file(weights, folder / name, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"metadata": {}, "weight_map": ["a"]}', '{"weight_map": {}}'],
)
def test_an_index_in_another_form_is_refused(tower, tmp_path, content):
    folder = shutil.copytree(tower, tmp_path / "tower")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index.json is no index of weights"):
        TextEncoder.open(folder)


def test_a_pickle_that_the_models_configuration_names_is_not_read(tower, tmp_path):
    folder = shutil.copytree(tower, tmp_path / "tower")
    shard(folder, lambda weights: save_part(weights, folder, "adapter_model.bin"))
    (folder / "model.safetensors.index.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    named = config | {"transformers_weights": "adapter_model.bin"}
    (folder / "config.json").write_text(json.dumps(named))
    with pytest.raises(ValueError, match=r"holds adapter_model.bin, a pickle"):
        TextEncoder.open(folder)


def test_all_passes_over_a_length_have_one_shape(tower, monkeypatch):
    """Small models round alike in any shape; large ones on a GPU do not."""
    shapes = set()

    def record(body, ids, is_token):
        shapes.add(tuple(ids.shape))
        return read_both_ways(body, ids, is_token)

    monkeypatch.setattr(encoder_module, "read_both_ways", record)
    encoder = TextEncoder.open(tower)
    texts = list(varied_texts(40))
    for number in (1, 7, 40):
        encoder.encode(texts[:number])
    assert len(shapes) > 2
    assert len({length for _, length in shapes}) == len(shapes), shapes


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", {"num_hidden_layers": 10**6}, "num_hidden_layers must be at most 1024"),
        ("config.json", {"num_hidden_layers": 1000}, "describes 1000 layers, and the weights"),
        ("config.json", {"hidden_size": 10**9}, "hidden_size must be at most 1048576"),
        ("config.json", {"num_attention_heads": 10**7}, "num_attention_heads must be at most"),
        ("config.json", {"vocab_size": 10**12}, "vocab_size must be at most 16777216"),
        ("config.json", {"vocab_size": -(10**12)}, "vocab_size must be at most 16777216"),
        ("config.json", {"intermediate_size": 10**12}, "intermediate_size must be at most"),
        ("config.json", {"max_position_embeddings": 10**400}, "max_position_embeddings must be"),
        ("config.json", {"text_config": {"num_layers": 10**6}}, "text_config.num_layers must be"),
        ("config.json", {"hidden_size": 64}, "cannot be opened|another shape|lacks"),
        ("config.json", {"model_type": "nothing"}, "cannot be opened"),
        ("config.json", {"num_attention_heads": "4"}, "cannot be opened"),
        ("text_tower.json", {"config": [1]}, "text_tower.json cannot be read"),
        ("text_tower.json", {"config": {"embed_dim": 10**9}}, "text_tower.json: text.embed_dim"),
        ("text_tower.json", {"config": {"embed_dim": "x"}}, "text.embed_dim must be of type int"),
    ],
)
def test_a_text_tower_that_asks_for_more_than_any_is_refused_by_file_and_field(
    tower, tmp_path, name, change, message
):
    shutil.copytree(tower, tmp_path / "tower")
    path = tmp_path / "tower" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message) as told:
        TextEncoder.open(tmp_path / "tower")
    assert str(tmp_path / "tower") in str(told.value)


@pytest.mark.parametrize(
    "name", ["config.json", "text_tower.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_text_tower_with_deep_json_is_refused_by_its_folder(tower, tmp_path, name):
    shutil.copytree(tower, tmp_path / "tower")
    (tmp_path / "tower" / name).write_text('{"a":' * 3000 + "1" + "}" * 3000)
    with pytest.raises((ValueError, OSError), match=str(tmp_path / "tower")):
        TextEncoder.open(tmp_path / "tower")


def test_damage_in_any_file_of_a_text_tower_is_told_by_its_folder(tower, tmp_path):
    """Bits flipped, numbers changed, parts lost and repeated: 80 towers."""
    folder, draw, outcomes = tmp_path / "tower", random.Random(0), set()
    shutil.copytree(tower, folder)
    whole = {path: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    for turn in range(80):
        path = list(whole)[turn % len(whole)]
        path.write_bytes(mutated(whole[path], draw))
        try:
            TextEncoder.open(folder)
            outcomes.add("opened")
        except (ValueError, OSError) as error:
            outcomes.add("refused" if str(folder) in str(error) else f"{path.name}: {error}")
        path.write_bytes(whole[path])
    assert outcomes == {"opened", "refused"}
