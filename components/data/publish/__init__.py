"""Versions of the data set: DVC for the bytes, Git for the history."""
