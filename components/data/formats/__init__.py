"""Readers of published annotation formats, which several steps share: no step."""
