"""Run a step: check its inputs, let it write drafts, check the drafts, publish by rename.

Every runner (command line, DVC, Kubeflow, Airflow) calls `run_step`. A retry is safe: a
half-written output is never visible, and a step finds the draft of a killed run again.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from components.core.contracts import check_drafts, require_contract
from components.core.counts import ROWS_FOUND, ROWS_IN, ROWS_OUT, ROWS_QUARANTINED
from components.core.digests import RECEIPT_NAME, file_digests
from components.core.drafts import (
    discard,
    finish_publishing,
    is_publishing,
    only_run,
    open_drafts,
    publish,
    require_safe_places,
)
from components.core.errors import ContractViolation, InputError
from components.core.files import write_whole
from components.core.receipts import (
    Receipt,
    damaged_outputs,
    fingerprint,
    input_digest,
    input_digests_of_settings,
    read_receipt,
    require_intact,
    require_nothing_added,
)
from components.core.settings import parse_settings
from components.core.step import Step, StepSettings

log = logging.getLogger(__name__)


def run_step(
    step: Step,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    settings: Mapping[str, object],
    *,
    waits: bool = False,
) -> Receipt:
    """Run a step once and publish its outputs; a finished run is not repeated.

    `waits`: while another run writes the same outputs, wait for it instead of raising BusyError.

    Raises:
        SettingsError, InputError: bad input; nothing was started.
        BusyError: another run is writing the same outputs.
        ContractViolation: an output breaks its contract past the budget; nothing was published.
        GateError: the result is refused by the step or its thresholds; nothing was published.
    """
    # Some libraries that steps use refuse relative paths.
    inputs = {name: path.absolute() for name, path in inputs.items()}
    outputs = {name: path.absolute() for name, path in outputs.items()}
    checked = parse_settings(step, settings)
    _require_inputs(step, inputs)
    _require_outputs(step, outputs)
    with only_run(outputs[step.outputs[0]], waits=waits):
        finished = finish_publishing(step, outputs)
        require_safe_places(step, inputs, outputs)
        digests = _digests(step, inputs, checked)
        return _run_alone(step, inputs, outputs, checked, digests, finished)


def _run_alone(
    step: Step,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    settings: StepSettings,
    digests: dict[str, str],
    finished: Receipt | None,
) -> Receipt:
    digest = fingerprint(step, settings, digests)
    if step.is_pure(settings):
        finished = published_receipt(step, outputs, digest)
    if finished and finished.fingerprint == digest:
        log.info("%s is up to date: %s", step.name, outputs[step.outputs[0]])
        return _judge_again(step, outputs, settings, finished)
    for name in step.outputs:
        require_nothing_added(name, outputs[name])
    for name, path in inputs.items():
        require_intact(name, path)
        require_contract(name, path)
    drafts = open_drafts(step, outputs, digest)
    metrics = step.function(**inputs, **drafts, settings=settings)
    try:
        ready, metrics, contracts = check_drafts(step.name, inputs, drafts, metrics)
    except ContractViolation:
        discard(step, drafts)  # a rerun must not judge the same draft for ever
        raise
    _require_conservation(step.name, metrics)
    step.judge(metrics, settings)
    receipt = Receipt(
        step=step.name,
        version=step.version,
        artifact=step.outputs[0],
        fingerprint=digest,
        settings=step.fingerprinted_settings(settings),
        thresholds=step.thresholds(settings),
        inputs=digests,
        metrics=metrics,
        contracts=contracts,
        files=_digests_of_outputs(step, ready),
    )
    publish(step, ready, outputs, receipt)
    return receipt


def _judge_again(
    step: Step, outputs: Mapping[str, Path], settings: StepSettings, receipt: Receipt
) -> Receipt:
    """Judge published outputs by the thresholds of now; those are then in the receipt.

    Raises:
        GateError: they would not be published today; they stay.
    """
    thresholds = step.thresholds(settings)
    if receipt.thresholds == thresholds:
        return receipt
    step.judge(receipt.metrics, settings)
    judged = receipt.model_copy(update={"thresholds": thresholds})
    write_whole(outputs[step.outputs[0]] / RECEIPT_NAME, judged.to_json())
    return judged


def run_digest(step: Step, inputs: Mapping[str, Path], settings: Mapping[str, object]) -> str:
    """A digest of a step's inputs and of the settings that decide its outputs.

    Raises:
        SettingsError, InputError: as `run_step`.
    """
    checked = parse_settings(step, settings)
    _require_inputs(step, inputs)
    return fingerprint(step, checked, _digests(step, inputs, checked))


def is_published(
    step: Step,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    settings: Mapping[str, object],
) -> bool:
    """Whether the outputs are there, whole, and made from these inputs and settings.

    Raises:
        SettingsError, InputError: as `run_step`.
    """
    checked = parse_settings(step, settings)
    if not step.is_pure(checked) or not all(path.exists() for path in inputs.values()):
        return False
    _require_outputs(step, outputs)
    if is_publishing(step, outputs):
        return False  # a killed run left something to finish
    receipt = published_receipt(step, outputs, run_digest(step, inputs, settings))
    return receipt is not None and receipt.thresholds == step.thresholds(checked)


def published_receipt(step: Step, outputs: Mapping[str, Path], digest: str) -> Receipt | None:
    """The receipt of a finished run with this fingerprint whose outputs are all there and whole."""
    receipt = read_receipt(outputs[step.outputs[0]])
    if receipt is None or receipt.fingerprint != digest:
        return None
    if not all(outputs[name].exists() for name in step.outputs):
        return None
    damage = damaged_outputs(receipt, outputs)
    if damage:
        log.warning("%s is made again: %s", step.name, damage)
        return None
    return receipt


def _require_outputs(step: Step, outputs: Mapping[str, Path]) -> None:
    missing = [name for name in step.outputs if name not in outputs]
    if missing:
        raise InputError(f"step {step.name} needs a path for its output(s) {', '.join(missing)}")


def _require_inputs(step: Step, inputs: Mapping[str, Path]) -> None:
    for name in step.inputs:
        if name not in inputs:
            raise InputError(f"step {step.name} needs a path for its input {name}")
        if not inputs[name].exists():
            raise InputError(
                f"step {step.name}: input {name} is not at {inputs[name]}; "
                "run the step that makes it first"
            )


def _digests(step: Step, inputs: Mapping[str, Path], settings: StepSettings) -> dict[str, str]:
    named = input_digests_of_settings(step, settings)
    return {**{name: input_digest(name, inputs[name]) for name in step.inputs}, **named}


def _require_conservation(name: str, metrics: Mapping[str, int | float]) -> None:
    if ROWS_IN in metrics:
        total = metrics[ROWS_OUT] + metrics[ROWS_QUARANTINED]
        assert metrics[ROWS_IN] + metrics.get(ROWS_FOUND, 0) == total, (
            f"{name} lost regions: {dict(metrics)}"
        )


def _digests_of_outputs(step: Step, ready: Mapping[str, Path]) -> dict[str, str]:
    """`artifact/path`, or the artifact of a single file -> sha256."""
    files = {}
    for name in step.outputs:
        assert ready[name].exists(), f"step {step.name} did not write its output {name}"
        prefix = f"{name}/" if ready[name].is_dir() else ""
        for file, digest in file_digests(ready[name]).items():
            files[f"{prefix}{file}" if prefix else name] = digest
    return files
