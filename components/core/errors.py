"""The errors this project raises on purpose: each says what, where and what to do."""

from collections.abc import Mapping, Sequence

from components.core.credentials import without_credentials


class PipelineError(Exception):
    """Base of every error this project raises on purpose; its message shows no password."""

    def __init__(self, message: str) -> None:
        super().__init__(without_credentials(message))


class InputError(PipelineError):
    """An input of a step is missing or is not what its name says."""


class BusyError(PipelineError):
    """Another run is writing the same output; it can be tried again later."""


class RanksFailed(PipelineError):
    """The processes of a training failed, here or on nodes."""


class SettingsError(PipelineError):
    """A setting is unknown or out of range; names `step.field`, the rule and the value."""


class GateError(PipelineError):
    """A step finished, but too much of its data was lost to go on."""

    def __init__(self, what: str, reasons: Mapping[str, int], advice: str) -> None:
        ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        histogram = ", ".join(f"{reason} {count}" for reason, count in ranked)
        shown = f" ({histogram})" if histogram else ""
        super().__init__(f"{what}{shown}. {advice}")
        self.reasons = dict(reasons)


class ContractViolation(PipelineError):
    """An artifact does not meet its contract."""

    def __init__(self, artifact: str, failures: Sequence[str], advice: str = "") -> None:
        rules = "; ".join(failures)
        message = f"artifact '{artifact}' breaks {len(failures)} rule(s): {rules}. {advice}"
        super().__init__(message.strip())
        self.artifact, self.failures = artifact, list(failures)


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error of a group to tell: one raised on purpose, else one of the system, else the first.

    Tasks that run side by side fail together; whoever reads it needs one reason in one line.
    """
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        else:
            leaves.append(error)
    told = (leaf for kind in (PipelineError, OSError) for leaf in leaves if isinstance(leaf, kind))
    return next(told, leaves[0])
