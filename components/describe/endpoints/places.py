"""The endpoints of the stages with their headers, and the keys that must not be shown."""

import os
import re

from components.describe.endpoints.rotation import Endpoint
from components.describe.endpoints.secrets import Secrets
from components.describe.settings import DescribeSettings, StageName
from components.kernel.errors import SettingsError

Endpoints = dict[StageName, tuple[Endpoint, ...]]


def endpoints_of(settings: DescribeSettings) -> tuple[Endpoints, Secrets]:
    """The endpoints of each stage; one URL with one key is one endpoint, whoever asks it.

    Raises:
        SettingsError: a key is missing, or is none.
    """
    known: dict[tuple[str, str], Endpoint] = {}
    keys = {name: _key(name, stage.api_key_env) for name, stage in settings.stages.items()}
    for name, stage in settings.stages.items():
        for url in stage.endpoints:
            endpoint = Endpoint(
                url,
                settings.concurrency,
                _headers(keys[name]),
                probe_model=stage.model,
                token_limit_name=stage.token_limit_name,
            )
            known.setdefault((url, stage.api_key_env), endpoint)
    stages = {
        name: tuple(known[url, stage.api_key_env] for url in dict.fromkeys(stage.endpoints))
        for name, stage in settings.stages.items()
    }
    return stages, Secrets(keys.values())


def _key(name: StageName, variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable)
    if not key:
        raise SettingsError(
            f"describe.{name}.api_key_env: the environment has no variable {variable}"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise SettingsError(
            f"describe.{name}.api_key_env: what the variable {variable} holds is no key: there is "
            "a blank, a line break or a character outside ASCII in it (perhaps at its end)"
        )
    return key


def _headers(key: str) -> dict[str, str]:
    common = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    return {**common, "Authorization": f"Bearer {key}"} if key else common
