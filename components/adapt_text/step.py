"""Make an encoder of a causal language model: both directions: `pixclip adapt-text --longgrit … --text-tower …`."""

from components.adapt_text.settings import AdaptTextSettings
from components.kernel.step import In, Metrics, Out, step


@step(image="train", gpus=1)
def adapt_text(longgrit: In, text_tower: Out, settings: AdaptTextSettings) -> Metrics:
    """Make an encoder of a causal language model: both directions, masked tokens, caption contrast."""
    raise NotImplementedError
