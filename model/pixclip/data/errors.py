"""What goes wrong with data; by then it has passed its contract, so nothing is skipped."""


class DataError(ValueError):
    """A file or sample of a data set cannot be used; names shard and sample."""
