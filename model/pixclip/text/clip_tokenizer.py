"""CLIP's tokenizer: lower-cased byte-pair encoding, and a marker at each end of a text.

    tokenizer = ClipTokenizer.open(Path("clip-vit-base-patch16"), config)
    tokenizer(["a red car"])  # [1, L] token ids

Its vocabulary travels in a checkpoint as `text_tower/tokenizer.json`. Public models have it as
`tokenizer.json`, as `vocab.json` with `merges.txt`, or as OpenAI's `bpe_simple_vocab_16e6.txt.gz`.
"""

import gzip
import logging
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixclip.config import ClipTextConfig
from pixclip.json_files import MAX_FILE_BYTES, brief, read_json_object, shown
from pixclip.text.language_model import damage_told
from pixclip.text.tokens import normalise, normalise_at

log = logging.getLogger(__name__)

TOKENIZER_NAME = "tokenizer.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
OPENAI_MERGES = ("bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt")
NUM_BYTE_TOKENS = 2 * 256 + 2  # bytes, bytes that end a word, markers
START, END = "<|startoftext|>", "<|endoftext|>"
FORMS = f"{TOKENIZER_NAME}, {VOCABULARY} with {MERGES}, or {OPENAI_MERGES[0]}"


class ClipTokenizer:
    """Turns texts into token ids: start marker, the text, end marker.

    A text that spells a marker is read as ordinary characters. As transformers does, and unlike
    OpenAI's code, it neither repairs broken encodings nor resolves HTML entities.
    """

    def __init__(self, tokenizer: Any, config: ClipTextConfig) -> None:
        start_id, end_id = (tokenizer.token_to_id(marker) for marker in (START, END))
        if start_id is None or end_id != config.end_token_id:
            raise ValueError(
                f"it is not the tokenizer of this model: {START} has id {start_id} and {END} id "
                f"{end_id}, text.end_token_id is {config.end_token_id}"
            )
        size = tokenizer.get_vocab_size(with_added_tokens=True)
        if size > config.vocab_size:
            raise ValueError(
                f"it has {size} tokens, text.vocab_size is {config.vocab_size}; bring the "
                "tokenizer that the weights were trained with"
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        self.config = config
        self._start_id, self._end_id = start_id, end_id
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, source: Path, config: ClipTextConfig) -> "ClipTokenizer":
        """The tokenizer in a folder, or of one of its files.

        Raises:
            ValueError: there is none, it is damaged, or it is not of a model of these sizes.
        """
        try:
            return cls(_open(source, config), config)
        except ValueError as error:
            raise ValueError(f"the tokenizer of {source}: {error}") from None

    def save(self, folder: Path) -> None:
        """Write it as the tokenizer of a checkpoint's text tower."""
        folder.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(folder / TOKENIZER_NAME))

    def is_same(self, other: "ClipTokenizer") -> bool:
        """Whether both make the same tokens of every text."""
        return bool(self._tokenizer.to_str() == other._tokenizer.to_str())

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The token ids [n, L] of texts, int64, filled up with 0 to the longest of them.

        A text that is longer than the context is cut before its end marker, and a warning tells
        how many were.

        Raises:
            ValueError: a text has no token or is no Unicode; names its position.
        """
        room = self.config.context_length - 2
        encoded = self._tokenizer.encode_batch(
            [normalise_at(index, text) for index, text in enumerate(texts)],
            add_special_tokens=False,
        )
        rows, num_cut = [], 0
        for index, one in enumerate(encoded):
            if not one.ids:
                raise ValueError(f"text {index} is empty: it has no token to embed; leave it out")
            num_cut += len(one.ids) > room
            rows.append(torch.tensor([self._start_id, *one.ids[:room], self._end_id]))
        if num_cut:
            log.warning(
                "%d of %d texts are longer than the %d tokens that the text tower takes; "
                "what comes after them is not read",
                *(num_cut, len(rows), self.config.context_length),
            )
        if not rows:
            return torch.empty(0, 2, dtype=torch.int64)
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def with_vocabulary_of(source: Path, config: ClipTextConfig) -> ClipTextConfig:
    """A configuration with the number of tokens and the end marker of a tokenizer.

    Raises:
        ValueError: there is none, it is damaged, or it has no such marker.
    """
    try:
        tokenizer = _open(source, config)
        end_id = tokenizer.token_to_id(END)
        if end_id is None:
            raise ValueError(f"it has no token {END}, so it is none of CLIP's")
    except ValueError as error:
        raise ValueError(f"the tokenizer of {source}: {error}") from None
    vocab_size = tokenizer.get_vocab_size(with_added_tokens=True)
    return config.changed(vocab_size=vocab_size, end_token_id=end_id)


def learn_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> int:
    """Learn a vocabulary of CLIP's form from texts, and write it as a tokenizer of a folder.

    For models from scratch: public weights come with the vocabulary that they were trained with.

    Returns:
        The number of tokens: at most `vocab_size`, fewer where the texts have no more pairs.

    Raises:
        ValueError: `vocab_size` leaves no room beside the bytes and the markers.
    """
    import json

    from tokenizers import Tokenizer, models, trainers

    if vocab_size <= NUM_BYTE_TOKENS:
        raise ValueError(f"vocab_size must be above {NUM_BYTE_TOKENS}, got {vocab_size}")
    plain = _built(_openai_vocabulary([]), [])
    learner = Tokenizer(models.BPE())
    learner.normalizer, learner.pre_tokenizer = plain.normalizer, plain.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(map(normalise, texts), trainer)
    learned = json.loads(learner.to_str())["model"]["merges"][: vocab_size - NUM_BYTE_TOKENS]
    merges = [(str(first), str(second)) for first, second in learned]
    tokenizer = _built(_openai_vocabulary(merges), merges)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER_NAME))
    size: int = tokenizer.get_vocab_size(with_added_tokens=True)
    return size


def _open(source: Path, config: ClipTextConfig) -> Any:
    found = _read(source, config)
    with damage_told("its vocabulary"):
        return found()


def _read(source: Path, config: ClipTextConfig) -> Callable[[], Any]:
    """How the library's tokenizer is made of whichever form is there; the files are read here."""
    folder = source if source.is_dir() else source.parent
    names = {path.name for path in source.iterdir()} if source.is_dir() else {source.name}
    if TOKENIZER_NAME in names:
        read_json_object(folder / TOKENIZER_NAME)  # bounded, before a parser in Rust reads it
        return partial(_opened, folder / TOKENIZER_NAME)
    if VOCABULARY in names:
        vocabulary = read_json_object(folder / VOCABULARY)
        return partial(_built, vocabulary, _merges(folder / MERGES))
    for name in OPENAI_MERGES:
        if name in names:
            # Its file holds far more merges than the model has tokens for.
            merges = _merges(folder / name)[: config.vocab_size - NUM_BYTE_TOKENS]
            return partial(_built, _openai_vocabulary(merges), merges)
    raise ValueError(f"none is there; give a folder with {FORMS}")


def _merges(path: Path) -> list[tuple[str, str]]:
    """The pairs of tokens in a file, whose first line is a heading."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
        lines = content.decode("utf-8").split("\n")[1:]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{path} holds no merges: {shown(error)}") from None
    pairs = []
    for number, line in enumerate(lines, start=2):
        match line.split():
            case [first, second]:
                pairs.append((first, second))
            case [_, *_]:
                raise ValueError(f"{path}, line {number} is no pair of tokens: {brief(line)}")
    return pairs


def _openai_vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Ids by token: the bytes, the bytes that end a word, the merges, the markers."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    ending = [letter + "</w>" for letter in letters]
    merged = [first + second for first, second in merges]
    return {token: number for number, token in enumerate([*letters, *ending, *merged, START, END])}


def _opened(path: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def _built(vocabulary: dict[str, Any], merges: Sequence[tuple[str, str]]) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=vocabulary, merges=list(merges)).backend_tokenizer
