"""PixCLIP: image regions of any shape and texts of any length in one embedding space."""
