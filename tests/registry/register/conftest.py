"""The fixtures of `tests/model_registry.py`."""

from tests.model_registry import registry, tracking_uri, world

__all__ = ["registry", "tracking_uri", "world"]
