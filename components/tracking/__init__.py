"""The name by which models that were registered before know their loader."""
