"""Models small enough for tests, of both kinds, and both kinds of text tower, random weights."""

import json
from pathlib import Path

import torch

from pixclip.config import ARCHITECTURES, AdaptorConfig, ClipTextConfig, ModelConfig, TextConfig
from pixclip.model import PixClip

TEXT = TextConfig(embed_dim=16, max_tokens=32)
SMALL = {"image_size_px": 32, "patch_size_px": 8, "width": 32, "num_layers": 2, "num_heads": 2}
VISION = {
    "clip": ARCHITECTURES["clip_vit_b16"].changed(**SMALL, mlp_width=64, embed_dim=24),
    "eva02": ARCHITECTURES["eva02_b16"].changed(**SMALL, mlp_width=48, embed_dim=24),
}


def tiny_model(kind: str = "clip") -> PixClip:
    """A model of random weights, the mask embedding's too."""
    torch.manual_seed(0)
    adaptor = AdaptorConfig(num_layers=1)
    model = PixClip(ModelConfig(vision=VISION[kind], text=TEXT, adaptor=adaptor, name="tiny"))
    for parameter in model.vision.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def save_tiny_text_tower(folder: Path) -> Path:
    """A text tower as `adapt_text` writes it: a Llama of two layers and a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    from pixclip.text.encoder import save_text_tower

    words = {word: number for number, word in enumerate(["<pad>", "<unk>", *"abcdefghij"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    body = LlamaModel(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=TEXT.embed_dim,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            is_causal=False,
        )
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
    folder.mkdir(parents=True, exist_ok=True)
    save_text_tower(folder, body, fast, TEXT, {"made_by": "test"})
    return folder


# Real merges in CLIP's form; the bytes themselves and those that end a word come before them.
MERGES = ["r e", "re d</w>", "c a", "ca r</w>", "t h", "th e</w>", "i n", "in g</w>", "o n</w>"]
CLIP_TEXT = ClipTextConfig(
    context_length=16,
    vocab_size=512 + len(MERGES) + 2,
    width=24,
    num_heads=2,
    num_layers=2,
    mlp_width=48,
    end_token_id=512 + len(MERGES) + 1,
)


def tiny_clip(**text: object) -> PixClip:
    """A model of random weights with CLIP's own text tower."""
    torch.manual_seed(0)
    config = ModelConfig(
        vision=VISION["clip"], text=CLIP_TEXT.changed(**text), adaptor=None, name="tiny_clip"
    )
    model = PixClip(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def save_clip_tokenizer(folder: Path) -> Path:
    """A small tokenizer of CLIP's kind, as Hugging Face keeps it: `vocab.json`, `merges.txt`."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += ["".join(pair.split()) for pair in MERGES]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return folder
