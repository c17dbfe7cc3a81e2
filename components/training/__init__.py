"""From a data set to a trained checkpoint."""
