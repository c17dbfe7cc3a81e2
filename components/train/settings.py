"""The settings of train."""

from components.kernel.step import StepSettings


class TrainSettings(StepSettings):
    """To be written."""
