"""Bring a version of LongGRIT out of the DVC repository that keeps it: `pixclip resolve-data --longgrit …`."""

from components.kernel.step import Metrics, Out, step
from components.resolve_data.settings import ResolveDataSettings


@step(image="train")
def resolve_data(longgrit: Out, settings: ResolveDataSettings) -> Metrics:
    """Bring a version of LongGRIT out of the DVC repository that keeps it."""
    raise NotImplementedError
