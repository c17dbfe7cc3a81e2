"""Embed every distinct caption once with the frozen text tower."""
