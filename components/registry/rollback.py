"""Make the previous champion the champion again: `pixclip rollback --promotion …`.

pixclip rollback --model pixclip --reason "worse on small regions"
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from components.core.errors import InputError
from components.core.step import Metrics, Out, StepSettings, by_hand, step
from components.registry.models import CHAMPION, NAME_PATTERN, PREVIOUS, Reference

if TYPE_CHECKING:
    from components.registry.models import Registry, Version
    from components.registry.promotions import Champions

REPORT_NAME = "report.json"


class RollbackSettings(StepSettings):
    """Which model goes back, to what, and why."""

    model: str = by_hand("pixclip", "name in the registry", pattern=NAME_PATTERN)
    version: str = by_hand(
        "",
        "number of an earlier champion; empty: the one that `previous` points to",
        pattern=r"^([1-9][0-9]{0,8})?$",
    )
    reason: str = by_hand(
        "rolled back by hand", "why, for the promotion log and the tag", min_length=1
    )
    tracking_uri: str = Field(
        "",
        description="address of MLflow; empty: MLFLOW_TRACKING_URI, or a file below runs/mlflow",
    )


# It acts on the registry of this moment, every time.
@step(image="train", is_pure=False)
def rollback(promotion: Out, settings: RollbackSettings) -> Metrics:
    """Make the previous champion the champion again.

    The version that is taken back gets the tag `rolled_back` and is not promoted again; the alias
    `previous` goes away. A second rollback therefore refuses instead of bringing the bad version
    back; to go further back, name the `version` of an earlier champion.
    """
    from components.registry.models import Registry
    from components.registry.promotions import ROLLBACK, earlier_run, promotion_entry, remember_run

    registry = Registry(settings.tracking_uri)
    with promotion_entry(registry, settings.model) as entry:
        # Of an attempt that died: brought to its end by this entry, or before.
        done = entry.done_by(earlier_run(promotion)) or entry.finished
        if _is_this(done, settings):
            loser, target = done["from"], done["to"]
        else:
            remember_run(promotion, entry.run_id)
            now = entry.champions()
            to = _target(registry, now, settings)
            assert now.champion, "_target refuses without one"
            loser, target = now.champion.number, to.number
            entry.move(ROLLBACK, to, settings.reason)
    _write_report(promotion, settings, loser, target)
    return {"champion_version": int(target), "rolled_back_version": int(loser)}


def _is_this(finished: Mapping[str, str], settings: RollbackSettings) -> bool:
    """Whether a move that was made is the rollback that is asked for."""
    from components.registry.promotions import ROLLBACK

    return finished.get("action") == ROLLBACK and settings.version in ("", finished["to"])


def _target(registry: "Registry", now: "Champions", settings: RollbackSettings) -> "Version":
    """The version that becomes the champion.

    Raises:
        InputError: there is no champion, nothing to go back to, or the version never was one.
    """
    from components.registry.promotions import was_champion

    if now.champion is None:
        raise InputError(f"{settings.model} has no {CHAMPION} in the registry to take back")
    if not settings.version:
        if now.previous is None:
            raise InputError(
                f"{settings.model} has no {PREVIOUS} champion to go back to{_last(registry, now)}; "
                "name the version of an earlier one: --version 3"
            )
        return now.previous
    target = registry.get(Reference(settings.model, settings.version))
    if target.number == now.champion.number:
        raise InputError(f"version {target.number} of {settings.model} is the champion already")
    if not was_champion(registry, target):
        raise InputError(
            f"version {target.number} of {settings.model} never was the champion; a candidate "
            "becomes one by `pixclip promote`"
        )
    return target


def _last(registry: "Registry", now: "Champions") -> str:
    """What the log says of a rollback that has been made already."""
    from components.registry.promotions import ROLLBACK, move_to

    made = move_to(registry, now.champion) if now.champion else {}
    if made.get("action") != ROLLBACK:
        return ""
    return f" (version {made['to']} came back in the place of {made['from']}: {made['reason']})"


def _write_report(folder: Path, settings: RollbackSettings, loser: str, target: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "headline": f"Rolled back: version {target} is the champion again",
        "outcome": "rolled_back",
        "model": settings.model,
        "champion_before": loser,
        "champion_after": target,
        "reason": settings.reason,
    }
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / REPORT_NAME).write_text(text + "\n", encoding="utf-8")
