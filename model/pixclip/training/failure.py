"""Why a rank failed, in a file beside its job: the process that started it only sees a number."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pixclip.json_files import JsonError, brief, read_json_object

FAILURE_NAME = "failure.json"
# What this library raises of data, models and settings that cannot be used: the same again.
REFUSALS = (ValueError, KeyError, FileNotFoundError)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """Why a rank ended; a refusal is the fault of data or settings, and a retry is of no use."""

    message: str
    is_refusal: bool


@contextmanager
def failure_told(job: Path) -> Iterator[None]:
    """Leave word of an error; one that names its reason itself ends without a traceback."""
    try:
        yield
    except (*REFUSALS, FloatingPointError) as error:
        _tell(job, Failure(str(error), is_refusal=isinstance(error, REFUSALS)))
        log.error("%s", error)
        log.debug("where it was raised", exc_info=True)
        sys.exit(1)
    except Exception as error:
        _tell(job, Failure(brief(f"{type(error).__name__}: {error}"), is_refusal=False))
        raise


def read_failure(job: Path) -> Failure | None:
    """What a rank has left word of, if any."""
    try:
        found = read_json_object(job.with_name(FAILURE_NAME))
        return Failure(str(found["message"]), bool(found["is_refusal"]))
    except (JsonError, KeyError):
        return None


def forget_failure(job: Path) -> None:
    """Remove what ranks of an earlier attempt have left."""
    job.with_name(FAILURE_NAME).unlink(missing_ok=True)


def _tell(job: Path, failure: Failure) -> None:
    path = job.with_name(FAILURE_NAME)
    with suppress(OSError):  # a full disk: the log has it
        path.write_text(json.dumps(asdict(failure)) + "\n", encoding="utf-8")
