"""The fixtures of `tests/model_registry.py`."""

from tests.model_registry import empty_database, registry, tracking_uri, world

__all__ = ["empty_database", "registry", "tracking_uri", "world"]
