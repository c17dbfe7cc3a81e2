"""What the log of a step leaves out, wherever the step runs."""

import logging

from components.kernel.credentials import without_credentials

# They say a line a request or a picture; the steps' own progress bars tell more in less.
CHATTY_LOGGERS = ("botocore", "PIL", "great_expectations")


class DiscreetRecord(logging.LogRecord):
    """A line of the log without the passwords and tokens of addresses, also of rows' addresses."""

    def getMessage(self) -> str:  # noqa: N802  # as logging calls it
        """The message with its arguments."""
        return without_credentials(super().getMessage())


def quieten_libraries() -> None:
    """Let libraries speak only to warn, and nobody tell a password."""
    logging.setLogRecordFactory(DiscreetRecord)
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
