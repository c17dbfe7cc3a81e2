"""Download every image of a group once: safe, bounded, resumable, the same bytes every time."""
