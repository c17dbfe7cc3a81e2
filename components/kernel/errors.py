"""The errors this project raises on purpose: each says what, where and what to do."""

from collections.abc import Mapping, Sequence

from components.kernel.credentials import without_credentials


class PipelineError(Exception):
    """Base of every error this project raises on purpose; its message shows no password."""

    def __init__(self, message: str) -> None:
        super().__init__(without_credentials(message))


class InputError(PipelineError):
    """An input of a step is missing or is not what its name says."""


class BusyError(PipelineError):
    """Another run is writing the same output; it can be tried again later."""


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
