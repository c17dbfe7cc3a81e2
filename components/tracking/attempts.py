"""Which run in MLflow an attempt of a step opened, kept in its draft: the next attempt asks for it.

The draft goes when the step's settings or inputs change, and its work folder on publishing.
"""

import re
from pathlib import Path

from components.kernel.files import write_whole
from components.kernel.tables import WORK_FOLDER

NAME = "mlflow_run"
RUN_ID = re.compile(r"[0-9a-f]{32}")


def earlier_run(draft: Path) -> str:
    """The run of the attempt before this one; empty if it got to none."""
    try:
        text = (draft / WORK_FOLDER / NAME).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return text if RUN_ID.fullmatch(text) else ""


def remember_run(draft: Path, run_id: str) -> None:
    """Keep the run of this attempt."""
    (draft / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    write_whole(draft / WORK_FOLDER / NAME, run_id)
