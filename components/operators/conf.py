"""Refuse a run whose `--conf` cannot work, before anything is started."""

from collections.abc import Iterable, Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from components.kernel.errors import SettingsError
from components.kernel.tables import groups_of
from components.runners.home import at_home


def refuse_wrong_conf(
    steps: Iterable[str], known: Iterable[str], params: Mapping[str, Any], conf: Mapping[str, Any]
) -> None:
    """Check the names of the parameters, which Airflow does not, and every step's settings.

    `known` names the DAG's own parameters: Airflow adds to `params` whatever the conf holds.

    Raises:
        AirflowFailException: says what is wrong; there is no retry.
    """
    from components.runners.plan import check_settings

    unknown = sorted(set(conf) - set(known))
    if unknown:
        raise AirflowFailException(
            f"--conf: no such parameter: {', '.join(unknown)}; known are {', '.join(known)}"
        )
    try:
        check_settings(steps, at_home(params["params_file"]), params["overrides"])
    except SettingsError as error:
        raise AirflowFailException(f"SettingsError: {error}") from error


def refuse_fixed(overrides: Mapping[str, Mapping[str, Any]], fixed: Mapping[str, set[str]]) -> None:
    """Refuse overrides of settings (names by step) that the DAG's own tasks decide.

    Raises:
        AirflowFailException: names them; there is no retry.
    """
    named = [
        f"{step}.{name}"
        for step, names in fixed.items()
        for name in sorted(names & set(overrides.get(step, {})))
    ]
    if named:
        raise AirflowFailException(
            f"overrides: {', '.join(named)}: the tasks of this DAG decide that; they follow "
            "PIXCLIP_RECIPE in the environment of Airflow"
        )


def list_groups(run_folder: str, artifact: str) -> list[str]:
    """The groups of an artifact, over which tasks are mapped.

    Raises:
        AirflowFailException: there is none.
    """
    folder = at_home(run_folder) / artifact
    groups = groups_of(folder)
    if not groups:
        raise AirflowFailException(f"{folder} holds no group: the source gave no usable record")
    return groups
