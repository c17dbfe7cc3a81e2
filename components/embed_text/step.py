"""Embed every distinct caption once with the frozen text tower: `pixclip embed-text --longgrit … --text-tower …`."""

from components.embed_text.settings import EmbedTextSettings
from components.kernel.step import In, Metrics, Out, step


@step(image="train", gpus=1)
def embed_text(
    longgrit: In, text_tower: In, text_embeddings: Out, settings: EmbedTextSettings
) -> Metrics:
    """Embed every distinct caption once with the frozen text tower."""
    raise NotImplementedError
