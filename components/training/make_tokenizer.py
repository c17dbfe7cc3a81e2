"""The tokenizer of CLIP's own text tower: `pixclip make-tokenizer --dataset … --text-tower …`.

Public weights need the tokenizer that they were trained with; a model from scratch learns its
vocabulary from the captions that it will be trained on.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from components.core.errors import InputError
from components.core.step import In, Metrics, Out, StepSettings, place, step
from components.core.tables import read_batches
from pixclip.data.layout import MANIFEST_NAME, TRAIN

CAPTIONS = ("long_caption", "short_caption")


class MakeTokenizerSettings(StepSettings):
    """Where the vocabulary is from."""

    tokenizer: str = place(
        "",
        "folder of a public model's tokenizer (tokenizer.json, vocab.json with merges.txt, or "
        "bpe_simple_vocab_16e6.txt.gz); empty: learn one from the captions",
    )
    vocab_size: int = Field(
        2048, ge=515, le=65_536, description="tokens of a learned vocabulary, at most"
    )


@step(image="train")
def make_tokenizer(dataset: In, text_tower: Out, settings: MakeTokenizerSettings) -> Metrics:
    """Bring a public tokenizer of CLIP's form, or learn one from the captions for training.

    In: the data set whose captions it is for. Out: the tokenizer's folder, which `init-model` takes
    as the text tower of a recipe of PA-CLIP: its own text tower needs no language model.
    """
    from pixclip.config import ClipTextConfig
    from pixclip.text.clip_tokenizer import ClipTokenizer, learn_tokenizer, with_vocabulary_of

    if not settings.tokenizer:
        return {"num_tokens": learn_tokenizer(_captions(dataset), settings.vocab_size, text_tower)}
    source = Path(settings.tokenizer)
    try:
        config = with_vocabulary_of(source, ClipTextConfig())
        ClipTokenizer.open(source, config).save(text_tower)
    except (OSError, ValueError) as error:
        raise InputError(f"make_tokenizer.tokenizer: {error}") from None
    return {"num_tokens": config.vocab_size}


def _captions(dataset: Path) -> Iterator[str]:
    """The captions of the training split."""
    for batch in read_batches(dataset / MANIFEST_NAME, ("split", *CAPTIONS)):
        for row in batch.to_pylist():
            if row["split"] == TRAIN:
                yield from (row[name] for name in CAPTIONS)
