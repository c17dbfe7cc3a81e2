"""Causal language models small enough for tests, as Hugging Face folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

CAPTIONS = (
    "a red car on the left of a street",
    "The red car is parked on the left of the street. Its paint is bright and the roof is black.",
    "a small brown dog",
    "The small brown dog lies under a table, its nose on its paws, and looks at the door.",
    "an apricot",
    "The apricot is mostly light brown with areas of yellow and orange, above a large paintbrush.",
)
WIDTH = 32


def train_tokenizer(*, start_token: str = "") -> Any:
    """A byte-level BPE tokenizer; with `start_token` it puts one before every text."""
    from tokenizers import ByteLevelBPETokenizer, processors
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    special = ["<pad>", "<end>", *([start_token] if start_token else [])]
    trained.train_from_iterator(CAPTIONS, vocab_size=400, special_tokens=special)
    if start_token:
        trained._tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start_token} $A", special_tokens=[(start_token, 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, pad_token="<pad>", eos_token="<end>"
    )


def save_language_model(
    folder: Path, kind: str = "llama", dtype: torch.dtype = torch.float32, start_token: str = ""
) -> Path:
    """A causal language model with random weights in a folder."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = train_tokenizer(start_token=start_token)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,  # larger than usual: tokens of a random model then differ clearly
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_text_tower_of(source: Path, folder: Path, **text: Any) -> Path:
    """The text tower of a language model that was not trained any further."""
    from transformers import AutoTokenizer

    from pixclip.config import TextConfig
    from pixclip.text.encoder import save_text_tower
    from pixclip.text.language_model import open_language_model

    body = open_language_model(source, with_head=False)
    config = TextConfig(embed_dim=WIDTH, **text)
    save_text_tower(folder, body, AutoTokenizer.from_pretrained(source), config, {})
    return folder


def varied_texts(number: int) -> Sequence[str]:
    """Distinct texts of many lengths."""
    words = " ".join(CAPTIONS).split()
    return [" ".join(words[: 1 + (7 * n) % 40]) + f" {n}" for n in range(number)]
