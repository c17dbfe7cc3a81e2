"""The project's folder, to which relative paths of settings and DAG parameters belong."""

import os
from pathlib import Path

import components

TRACKING_FOLDER = "runs/mlflow"  # of MLflow's database file, where no server is named


def project_home() -> Path:
    """`PIXCLIP_HOME`, or the checkout that this package is in.

    An orchestrator starts tasks in folders of its own, so the working directory says nothing.
    """
    return Path(os.environ.get("PIXCLIP_HOME") or Path(components.__path__[0]).parent)


def at_home(path: str | Path) -> Path:
    """A path, relative ones being relative to the project's folder."""
    return project_home() / path
