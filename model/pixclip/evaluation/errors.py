"""The error of this package."""


class EvaluationError(ValueError):
    """An evaluation cannot be made, read or compared; the message says why and what to do."""
