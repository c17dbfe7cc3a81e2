"""The settings of resolve_data."""

from components.kernel.step import StepSettings


class ResolveDataSettings(StepSettings):
    """To be written."""
