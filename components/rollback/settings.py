"""The settings of rollback."""

from components.kernel.step import StepSettings


class RollbackSettings(StepSettings):
    """To be written."""
