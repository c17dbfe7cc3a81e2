"""CLIP's tokenizer: the same ids in every form of its files, the end marker kept, damage named."""

import gzip
import json
import random

import pytest
import torch
from transformers import CLIPTokenizer

from pixclip.text.clip_tokenizer import ClipTokenizer
from tests.mutations import mutated
from tests.pixclip.tiny_models import CLIP_TEXT, MERGES, save_clip_tokenizer

TEXTS = ["The  RED car!", "on the thing", "it's über\n9 cars", "日本 <|endoftext|> a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clip_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def openai_merges(path):
    """OpenAI's file: a heading, the merges, and more merges than the model has tokens for."""
    content = "\n".join(['"bpe_simple_vocab_16e6.txt#version: 0.2', *MERGES, "x x", "y y", ""])
    path.write_bytes(gzip.compress(content.encode()))
    return path


def test_every_form_of_its_files_gives_the_ids_of_transformers_tokenizer(folder, tmp_path):
    peer = CLIPTokenizer.from_pretrained(str(folder))
    wanted = [peer(text)["input_ids"] for text in TEXTS[:3]]
    ours = ClipTokenizer.open(folder, CLIP_TEXT.changed(context_length=40))
    ours.save(tmp_path / "saved")
    merges = openai_merges(tmp_path / "bpe_simple_vocab_16e6.txt.gz")
    for source in (folder, tmp_path / "saved", tmp_path / "saved" / "tokenizer.json", merges):
        tokenizer = ClipTokenizer.open(source, CLIP_TEXT.changed(context_length=40))
        for text, ids in zip(TEXTS[:3], wanted, strict=True):
            assert tokenizer([text]).tolist() == [ids], (source, text)


def test_merges_are_applied_and_a_text_has_its_markers(folder):
    (ids,) = ClipTokenizer.open(folder, CLIP_TEXT)(["the red car"]).tolist()
    assert ids == [521, 512 + 5, 512 + 1, 512 + 3, 522]


def test_texts_are_filled_up_to_the_longest_of_them(folder):
    ids = ClipTokenizer.open(folder, CLIP_TEXT)(["the", "the red car"])
    assert ids.dtype == torch.int64
    assert ids[0].tolist() == [521, 517, 522, 0, 0]
    assert ClipTokenizer.open(folder, CLIP_TEXT)([]).shape == (0, 2)


def test_a_text_that_spells_a_marker_holds_none(folder):
    ids = ClipTokenizer.open(folder, CLIP_TEXT.changed(context_length=60))(
        ["<|endoftext|> <|startoftext|>"]
    )
    assert (ids == 522).sum() == 1
    assert ids[0, -1] == 522
    assert (ids == 521).sum() == 1


def test_a_long_text_keeps_its_end_marker_and_is_told_of(folder, caplog):
    tokenizer = ClipTokenizer.open(folder, CLIP_TEXT)
    ids = tokenizer(["the " * 14, "the " * 15, "the " * 40])
    assert ids.shape == (3, 16)
    assert (ids[:, -1] == 522).all()
    assert "2 of 3 texts are longer than the 16 tokens" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "text 1 is empty"), (" \n", "text 1 is empty"), ("\ud800", "no Unicode")],
)
def test_a_text_without_content_is_refused_by_its_place(folder, text, message):
    with pytest.raises(ValueError, match=message):
        ClipTokenizer.open(folder, CLIP_TEXT)(["the", text])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"end_token_id": 521}, "id 522, text.end_token_id is 521"),
        ({"vocab_size": 522, "end_token_id": 521}, "not the tokenizer of this model"),
    ],
)
def test_the_tokenizer_of_another_model_is_refused(folder, change, message):
    with pytest.raises(ValueError, match=message):
        ClipTokenizer.open(folder, CLIP_TEXT.changed(**change))


def test_more_tokens_than_the_model_has_are_refused(folder, tmp_path):
    ClipTokenizer.open(folder, CLIP_TEXT).save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["vocab"]["one more"] = 523
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has 524 tokens, text\.vocab_size is 523"):
        ClipTokenizer.open(tmp_path, CLIP_TEXT)


def test_a_folder_without_a_tokenizer_says_what_is_looked_for(tmp_path):
    with pytest.raises(
        ValueError, match=r"none is there; give a folder with tokenizer.json, vocab"
    ):
        ClipTokenizer.open(tmp_path, CLIP_TEXT)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("merges.txt", b"#\nr e d\n", r"merges.txt, line 2 is no pair of tokens: r e d"),
        ("merges.txt", b"\xff", "holds no merges"),
        ("vocab.json", b"[1]", "must hold an object"),
        ("bpe_simple_vocab_16e6.txt.gz", b"version https://git-lfs", "holds no merges"),
    ],
)
def test_a_file_that_is_none_is_named(name, content, message, tmp_path):
    if "bpe" not in name:
        save_clip_tokenizer(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as told:
        ClipTokenizer.open(tmp_path, CLIP_TEXT)
    assert str(tmp_path) in str(told.value)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "vocab.json", "merges.txt", "bpe_simple_vocab_16e6.txt.gz"]
)
def test_damaged_files_are_refused_by_name_and_never_anything_else(name, folder, tmp_path):
    draw, outcomes = random.Random(0), set()
    if name == "tokenizer.json":
        ClipTokenizer.open(folder, CLIP_TEXT).save(tmp_path)
    elif "bpe" in name:
        openai_merges(tmp_path / name)
    else:
        save_clip_tokenizer(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for _ in range(60):
        (tmp_path / name).write_bytes(mutated(whole, draw))
        try:
            ClipTokenizer.open(tmp_path, CLIP_TEXT)
            outcomes.add("read")
        except (OSError, ValueError) as error:
            outcomes.add("refused" if str(tmp_path) in str(error) else str(error))
    assert outcomes <= {"read", "refused"}
    assert "refused" in outcomes
