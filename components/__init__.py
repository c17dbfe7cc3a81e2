"""The steps of the pipelines, one folder a step, and beside them what runs them."""
