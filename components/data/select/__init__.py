"""Keep the regions of a source that are worth downloading; say why the others are not."""
