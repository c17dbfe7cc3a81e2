"""The embedded describer: rules over what is measured, for a laptop; no model speaks here."""

from components.data.describe.embedded.describer import EmbeddedDescriber

__all__ = ["EmbeddedDescriber"]
