"""Take out of the training images what evaluation sets test with."""
