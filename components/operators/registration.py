"""Name a version of a registered model for a task that reads a registration."""

import json

from components.kernel.errors import SettingsError
from components.runners.home import at_home
from components.tracking.names import CANDIDATE, Reference


def write_registration(run_folder: str, model: str, version: str) -> None:
    """Write the `registration` that names a version; empty: the candidate.

    Raises:
        AirflowFailException: a name is none; there is no retry.
    """
    from airflow.sdk.exceptions import AirflowFailException

    try:
        reference = Reference(model, version or CANDIDATE)
    except SettingsError as error:
        raise AirflowFailException(f"SettingsError: {error}") from error
    folder = at_home(run_folder) / "registration"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model": reference.model, "version": reference.which}
    (folder / "registration.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
