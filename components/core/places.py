"""Whether the paths of a run's artifacts are safe: publishing replaces what lies at an output."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components.core.digests import RECEIPT_NAME
from components.core.errors import BusyError, InputError
from components.core.receipts import is_own_file, read_receipt
from components.core.step import ARTIFACTS, Step


def require_safe_places(
    step: Step, inputs: Mapping[str, Path], outputs: Mapping[str, Path]
) -> None:
    """Refuse outputs that would overwrite an input, another output, or a folder that is not ours.

    Raises:
        InputError: says which path is in the way.
    """
    real = {name: outputs[name].resolve() for name in step.outputs}
    others = {f"input {name}": inputs[name].resolve() for name in step.inputs}
    for name, path in real.items():
        for other, taken in others.items():
            if path.is_relative_to(taken) or taken.is_relative_to(path):
                raise InputError(
                    f"step {step.name}: output {name} at {path} overlaps with {other} at {taken}; "
                    "name another path"
                )
        others[f"output {name}"] = path
        is_folder = path.is_dir() or name == step.outputs[0]  # which holds the receipt
        if is_folder and path.exists() and not _is_replaceable(name, path):
            raise InputError(
                f"step {step.name}: output {name}: {path} is there already and holds something "
                "else; name another path or remove it"
            )
        file, first = outputs[name], outputs[step.outputs[0]]
        if not is_folder and os.path.lexists(file) and not is_own_file(name, file, first):
            raise InputError(
                f"step {step.name}: output {name}: {file} is there already and was not published "
                f"with {first}: it is another run's or somebody's file, or was changed since; name "
                "another path, or move it away"
            )


def _is_replaceable(name: str, path: Path) -> bool:
    """Whether a folder is empty, or was published as this artifact."""
    if not path.is_dir():
        return False
    receipt, text = read_receipt(path), path / RECEIPT_NAME
    if receipt:
        return any(file.startswith(f"{name}/") for file in receipt.files)
    if not text.exists():
        return not any(path.iterdir())
    # Damaged, or of an older release: one of ours too, unless it names another artifact's files.
    content = text.read_bytes()
    named = [artifact for artifact in ARTIFACTS if f'"{artifact}/'.encode() in content]
    return not named or name in named


@contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Keep a second run away from the same output, also if this one is killed and started again.

    Raises:
        BusyError: another run writes there now.
        InputError: nothing can be written there.
    """
    if not output.name:
        raise InputError(f"{output} cannot be replaced; name a folder that is not there yet")
    path = output.with_name(f".{output.name}.lock")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.filename}: {error.strerror}") from None
    try:
        _lock(file, path, output)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is still locked: nobody else's is removed
    finally:
        os.close(file)


def _lock(file: int, path: Path, output: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.path.samestat(os.fstat(file), path.stat())
    except (BlockingIOError, FileNotFoundError):
        is_ours = False
    if not is_ours:  # it is held, or its holder has just removed it
        raise BusyError(f"another run is writing {output} at this moment; wait for it to end")
