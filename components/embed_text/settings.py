"""The settings of embed_text."""

from components.kernel.step import StepSettings


class EmbedTextSettings(StepSettings):
    """To be written."""
