"""What the log of a step leaves out, wherever the step runs."""

import logging

# They say a line a request or a picture; the steps' own progress bars tell more in less.
CHATTY_LOGGERS = ("botocore", "PIL", "great_expectations")


def quieten_libraries() -> None:
    """Let libraries speak only to warn."""
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
