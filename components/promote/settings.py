"""The settings of promote."""

from components.kernel.step import StepSettings


class PromoteSettings(StepSettings):
    """To be written."""
