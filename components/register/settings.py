"""The settings of register."""

from components.kernel.step import StepSettings


class RegisterSettings(StepSettings):
    """To be written."""
