"""Describe regions in three stages, verified: object caption, context caption, long caption."""
