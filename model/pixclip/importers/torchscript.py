"""The tensors of a TorchScript archive, such as OpenAI's CLIP, without running any of its code.

An archive is a zip of `data.pkl` (the modules as nested objects), `data/<n>` (the numbers) and
code. Here a module becomes a bare holder of attributes, and any name outside a short list is
refused; the archive's own code is never read.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LISTS = {"build_intlist", "build_tensorlist", "build_doublelist", "build_boollist"}


class NotAllowed(pickle.UnpicklingError):
    """The archive names something that weights have no use for."""


class Module:
    """What is left of a module: its attributes by name."""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise NotAllowed("a module whose state is no table of attributes")
        self.attributes: dict[str, object] = state


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    """Whether a zip file is a TorchScript archive, by the file that plain weights do not have."""
    return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Every parameter and buffer by its dotted name.

    Raises:
        pickle.UnpicklingError: the archive needs more than modules of tensors and numbers.
    """
    with zipfile.ZipFile(path) as archive:
        (data,) = [
            name for name in archive.namelist() if name.count("/") == 1 and "data.pkl" in name
        ]
        with archive.open(data) as file:
            root = Reader(file, archive, data.removesuffix(".pkl")).load()
    if not isinstance(root, Module):
        raise NotAllowed("an archive that holds no module")
    return dict(_tensors(root, ""))


def _tensors(module: Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, Module):
            yield from _tensors(value, f"{prefix}{name}.")


class Reader(pickle.Unpickler):
    """Reads modules, tensors and plain values; everything else is refused."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name of the archive stands for here; called by the pickle machine."""
        if module == "__torch__" or module.startswith("__torch__."):
            return Module
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch.jit._pickle" and name in LISTS:
            return list
        raise NotAllowed(f"the name {module}.{name}")

    def persistent_load(self, key: Any) -> Tensor:
        """A storage: the flat tensor of `data/<n>`; called by the pickle machine."""
        kind, dtype, number, _location, size = key
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(number).isdigit():
            raise NotAllowed(f"a stored object that is no storage of numbers: {key}")
        if number not in self.storages:
            self.storages[number] = self._read_storage(number, dtype, size)
        return self.storages[number]

    def _read_storage(self, number: str, dtype: torch.dtype, size: int) -> Tensor:
        member = self.archive.getinfo(f"{self.folder}/{number}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise NotAllowed(f"storage {number} is compressed, which torch never does")
        if member.file_size != size * dtype.itemsize:
            raise NotAllowed(
                f"storage {number} of {member.file_size} bytes, {size} numbers expected"
            )
        content = bytearray(self.archive.read(member))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)
