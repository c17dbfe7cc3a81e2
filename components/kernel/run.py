"""Run a step: check its inputs, let it write drafts, check the drafts, publish by rename.

Every runner (command line, DVC, Kubeflow, Airflow) calls `run_step`. A retry is safe: a
half-written output is never visible, and a step finds the draft of a killed run again.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from components.kernel.contracts import check_drafts, require_contract
from components.kernel.drafts import finish_publishing, open_drafts, publish
from components.kernel.errors import InputError
from components.kernel.places import only_run, require_safe_places
from components.kernel.receipts import (
    Receipt,
    file_digests,
    fingerprint,
    input_digest,
    read_receipt,
)
from components.kernel.settings import parse_settings
from components.kernel.step import Step, StepSettings
from components.kernel.tally import ROWS_IN, ROWS_OUT, ROWS_QUARANTINED

log = logging.getLogger(__name__)


def run_step(
    step: Step,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    settings: Mapping[str, object],
) -> Receipt:
    """Run a step once and publish its outputs; a finished run is not repeated.

    Raises:
        SettingsError, InputError: bad input; nothing was started.
        BusyError: another run is writing the same outputs.
        ContractViolation: an output breaks its contract past the budget; nothing was published.
        GateError: the step itself refused its result.
    """
    # Some libraries that steps use refuse relative paths.
    inputs = {name: path.absolute() for name, path in inputs.items()}
    outputs = {name: path.absolute() for name, path in outputs.items()}
    checked = parse_settings(step, settings)
    digests = _input_digests(step, inputs)
    _require_outputs(step, outputs)
    require_safe_places(step, inputs, outputs)
    with only_run(outputs[step.outputs[0]]):
        return _run_alone(step, inputs, outputs, checked, digests)


def _run_alone(
    step: Step,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    settings: StepSettings,
    digests: Mapping[str, str],
) -> Receipt:
    digest = fingerprint(step, settings, digests)
    published = published_receipt(step, outputs, digest) if step.is_pure else None
    published = published or finish_publishing(outputs, step.outputs[0], digest)
    if published:
        log.info("%s is up to date: %s", step.name, outputs[step.outputs[0]])
        return published
    for name, path in inputs.items():
        require_contract(name, path)
    drafts = open_drafts(outputs, digest)
    metrics = step.function(**inputs, **drafts, settings=settings)
    ready, metrics, contracts = check_drafts(step.name, inputs, drafts, metrics)
    _require_conservation(step.name, metrics)
    receipt = Receipt(
        step=step.name,
        fingerprint=digest,
        settings=step.fingerprinted_settings(settings),
        inputs=digests,
        metrics=metrics,
        contracts=contracts,
        files={},
    )
    return _publish(step, ready, outputs, receipt)


def run_digest(step: Step, inputs: Mapping[str, Path], settings: Mapping[str, object]) -> str:
    """A digest of a step's inputs and of the settings that decide its outputs.

    Raises:
        SettingsError, InputError: as `run_step`.
    """
    return fingerprint(step, parse_settings(step, settings), _input_digests(step, inputs))


def is_published(
    step: Step,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    settings: Mapping[str, object],
) -> bool:
    """Whether the outputs are there and made from these inputs and settings."""
    if not step.is_pure or not all(path.exists() for path in inputs.values()):
        return False
    checked = parse_settings(step, settings)
    digest = fingerprint(step, checked, _input_digests(step, inputs))
    return published_receipt(step, outputs, digest) is not None


def published_receipt(step: Step, outputs: Mapping[str, Path], digest: str) -> Receipt | None:
    """The receipt of a finished run with this fingerprint whose outputs are all there."""
    _require_outputs(step, outputs)
    receipt = read_receipt(outputs[step.outputs[0]])
    is_done = (
        receipt is not None
        and receipt.fingerprint == digest
        and all(outputs[name].exists() for name in step.outputs)
    )
    return receipt if is_done else None


def _require_outputs(step: Step, outputs: Mapping[str, Path]) -> None:
    missing = [name for name in step.outputs if name not in outputs]
    if missing:
        raise InputError(f"step {step.name} needs a path for its output(s) {', '.join(missing)}")


def _input_digests(step: Step, inputs: Mapping[str, Path]) -> dict[str, str]:
    for name in step.inputs:
        if name not in inputs:
            raise InputError(f"step {step.name} needs a path for its input {name}")
        if not inputs[name].exists():
            raise InputError(
                f"step {step.name}: input {name} is not at {inputs[name]}; "
                "run the step that makes it first"
            )
    return {name: input_digest(name, inputs[name]) for name in step.inputs}


def _require_conservation(name: str, metrics: Mapping[str, int | float]) -> None:
    if ROWS_IN in metrics:
        total = metrics[ROWS_OUT] + metrics[ROWS_QUARANTINED]
        assert metrics[ROWS_IN] == total, f"{name} lost regions: {dict(metrics)}"


def _publish(
    step: Step, ready: Mapping[str, Path], outputs: Mapping[str, Path], receipt: Receipt
) -> Receipt:
    for name in step.outputs:
        assert ready[name].exists(), f"step {step.name} did not write its output {name}"
    files = {
        f"{name}/{path}" if ready[name].is_dir() else name: digest
        for name in step.outputs
        for path, digest in file_digests(ready[name]).items()
    }
    receipt = replace(receipt, files=files)
    publish(ready, outputs, step.outputs[0], receipt)
    return receipt
