"""The user's own images with a COCO annotation file, as GRIT records."""
