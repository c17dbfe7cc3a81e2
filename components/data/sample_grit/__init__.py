"""Composed scenes of real photographs in GRIT's layout: the sample source."""
