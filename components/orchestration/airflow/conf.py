"""Refuse a run whose `--conf` cannot work, before anything is started.

`write_registration` names a version of a registered model for a task that reads a registration.
"""

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from components.core.drafts import remove
from components.core.errors import SettingsError
from components.core.settings import refuse_credentials
from components.core.tables import groups_of
from components.orchestration.home import at_home
from components.registry.models import CANDIDATE, Reference

log = logging.getLogger(__name__)


def refuse_wrong_conf(
    steps: Iterable[str], known: Iterable[str], params: Mapping[str, Any], conf: Mapping[str, Any]
) -> None:
    """Check the names of the parameters, which Airflow does not, and every step's settings.

    `known` names the DAG's own parameters: Airflow adds to `params` whatever the conf holds.

    Raises:
        AirflowFailException: says what is wrong; there is no retry.
    """
    from components.orchestration.plan import check_settings

    unknown = sorted(set(conf) - set(known))
    if unknown:
        raise AirflowFailException(
            f"--conf: no such parameter: {', '.join(unknown)}; known are {', '.join(known)}"
        )
    try:
        refuse_credentials(conf, "--conf")
        check_settings(steps, at_home(params["params_file"]), params["overrides"])
    except SettingsError as error:
        raise AirflowFailException(f"SettingsError: {error}") from error


def refuse_fixed(
    overrides: Mapping[str, Mapping[str, Any]], fixed: Mapping[str, set[str]], variable: str
) -> None:
    """Refuse overrides of settings (names by step) that the DAG's own tasks decide.

    `variable` of the environment decides those.

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
            f"{variable} in the environment of Airflow"
        )


def list_groups(run_folder: str, artifact: str, mapped: Iterable[str] = ()) -> list[str]:
    """The groups of an artifact, over which tasks are mapped.

    `mapped` are the paths that those tasks write, with `{group}` in them. What an earlier run with
    more groups left there is removed: a step over all groups would take it for this run's.

    Raises:
        AirflowFailException: there is none.
    """
    home = at_home(run_folder)
    groups = groups_of(home / artifact)
    if not groups:
        raise AirflowFailException(
            f"{home / artifact} holds no group: the source gave no usable record"
        )
    for stale in _of_other_groups(home, mapped, set(groups)):
        log.warning("%s is of an earlier run with other groups and is removed", stale)
        remove(stale)
    return groups


def _of_other_groups(home: Path, mapped: Iterable[str], groups: set[str]) -> Iterator[Path]:
    for form in mapped:
        before, _, after = Path(form).name.partition("{group}")
        for path in sorted((home / form).parent.glob(f"{before}*{after}")):
            group = path.name.removeprefix(before).removesuffix(after)
            if group.isdigit() and group not in groups:
                yield path


def keep_only(run_folder: str, folder: str, names: Collection[str]) -> None:
    """Remove what an earlier run has left in a folder under other names than those."""
    home = at_home(run_folder) / folder
    for path in sorted(home.iterdir()) if home.is_dir() else []:
        if path.name[0] != "." and path.name not in names:
            log.warning("%s is of an earlier run with other names and is removed", path)
            remove(path)


def write_registration(run_folder: str, model: str, version: str) -> None:
    """Write the `registration` that names a version; empty: the candidate.

    Raises:
        AirflowFailException: a name is none; there is no retry.
    """
    try:
        reference = Reference(model, version or CANDIDATE)
    except SettingsError as error:
        raise AirflowFailException(f"SettingsError: {error}") from error
    folder = at_home(run_folder) / "registration"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model": reference.model, "version": reference.which}
    (folder / "registration.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
