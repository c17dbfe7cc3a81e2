"""The settings of evaluate."""

from components.kernel.step import StepSettings


class EvaluateSettings(StepSettings):
    """To be written."""
