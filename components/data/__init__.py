"""From a source of images to a published data set."""
