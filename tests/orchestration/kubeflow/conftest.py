"""Compiling many pipelines in a short time."""

import inspect
from collections.abc import Iterator
from functools import partial

import pytest


@pytest.fixture(scope="session", autouse=True)
def stacks_without_sources() -> Iterator[None]:
    """kfp asks at each setting of a task which function called it: without each frame's source.

    Inside pytest that looks through all modules for every frame, and takes 2 s a pipeline.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", partial(inspect.stack, 0))
        yield
