"""LongGRIT for training and evaluation."""
