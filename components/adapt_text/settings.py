"""The settings of adapt_text."""

from components.kernel.step import StepSettings


class AdaptTextSettings(StepSettings):
    """To be written."""
