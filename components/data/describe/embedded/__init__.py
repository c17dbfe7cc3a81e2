"""The embedded describers: rules over what is measured, for a laptop; no model speaks here."""

from components.data.describe.embedded.describer import EmbeddedDescriber
from components.data.describe.embedded.parts import EmbeddedPartDescriber

__all__ = ["EmbeddedDescriber", "EmbeddedPartDescriber"]
