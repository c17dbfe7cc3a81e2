"""What MLflow calls for models that were registered when the loader was here."""

from components.registry.pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]
