"""The tokenizer of CLIP's own text tower: learned from captions, or a public one."""

import pytest

from components.core.errors import InputError
from components.training.make_tokenizer import MakeTokenizerSettings, make_tokenizer
from pixclip.config import ClipTextConfig
from pixclip.text.clip_tokenizer import ClipTokenizer, with_vocabulary_of
from tests.pixclip.data.part_world import write_fgpart
from tests.pixclip.tiny_models import CLIP_TEXT, save_clip_tokenizer


@pytest.fixture
def dataset(tmp_path):
    write_fgpart(tmp_path / "dataset")
    return tmp_path / "dataset"


def made(dataset, folder, **settings):
    metrics = make_tokenizer.function(
        dataset=dataset, text_tower=folder, settings=MakeTokenizerSettings(**settings)
    )
    config = with_vocabulary_of(folder, ClipTextConfig())
    return metrics, ClipTokenizer.open(folder, config)


def test_words_of_the_captions_become_tokens_and_any_text_can_be_read(dataset, tmp_path):
    metrics, tokenizer = made(dataset, tmp_path / "tower", vocab_size=560)
    assert 514 < metrics["num_tokens"] <= 560
    (long,) = tokenizer(["long"]).tolist()
    assert len(long) == 3
    (foreign,) = tokenizer(["Ärger 日本"]).tolist()
    assert len(set(foreign)) > 5


def test_the_same_captions_give_the_same_bytes(dataset, tmp_path):
    made(dataset, tmp_path / "one")
    made(dataset, tmp_path / "two")
    names = [sorted(path.name for path in (tmp_path / n).iterdir()) for n in ("one", "two")]
    assert names == [["tokenizer.json"], ["tokenizer.json"]]
    one, two = ((tmp_path / n / "tokenizer.json").read_bytes() for n in ("one", "two"))
    assert one == two


def test_a_public_tokenizer_keeps_its_ids(dataset, tmp_path):
    source = save_clip_tokenizer(tmp_path / "public")
    metrics, tokenizer = made(dataset, tmp_path / "tower", tokenizer=str(source))
    assert metrics["num_tokens"] == CLIP_TEXT.vocab_size
    peer = ClipTokenizer.open(source, CLIP_TEXT)
    assert tokenizer(["the red car"]).tolist() == peer(["the red car"]).tolist()


def test_a_folder_without_a_tokenizer_is_refused(dataset, tmp_path):
    with pytest.raises(InputError, match=r"the tokenizer of .* none is there"):
        made(dataset, tmp_path / "tower", tokenizer=str(dataset))
