"""The settings of init_model."""

from components.kernel.step import StepSettings


class InitModelSettings(StepSettings):
    """To be written."""
