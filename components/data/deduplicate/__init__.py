"""Keep one of each image across all groups, and bring boxes to the pixels of the real image."""
