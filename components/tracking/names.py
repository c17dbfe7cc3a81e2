"""Names in the registry, and addresses of models such as `models:/pixclip@champion`."""

import re
from dataclasses import dataclass

from components.kernel.errors import SettingsError

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
# A number, or an alias.
WHICH_PATTERN = r"^([1-9][0-9]{0,8}|[a-z][a-z0-9_-]{0,63})$"
ADDRESS = re.compile(r"^models:/(?P<model>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>[0-9]+))$")


@dataclass(frozen=True)
class Reference:
    """Which version of which model is meant; `which` is a number or an alias."""

    model: str
    which: str

    def __post_init__(self) -> None:
        for what, value, pattern in (
            ("name of a model", self.model, NAME_PATTERN),
            ("version or alias", self.which, WHICH_PATTERN),
        ):
            if not re.fullmatch(pattern, value):
                raise SettingsError(f"'{value}' is no {what}: it must match {pattern}")

    def __str__(self) -> str:
        """As MLflow writes it."""
        return f"models:/{self.model}{'/' if self.which.isdigit() else '@'}{self.which}"


def parse_address(address: str) -> Reference:
    """The reference of an address `models:/<name>@<alias>` or `models:/<name>/<number>`.

    Raises:
        SettingsError: it is none.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise SettingsError(
            f"'{address}' is no address of a model; write models:/pixclip@champion or "
            "models:/pixclip/3"
        )
    return Reference(found["model"], found["alias"] or found["number"])
