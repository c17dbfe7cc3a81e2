"""Open a file of public weights: tensors by name, and nothing that runs code.

Of a TorchScript archive only the tensors are read, never its code.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pixclip.json_files import JsonError, brief, parse_json, read_json_object

SAFETENSORS, ARCHIVES = (".safetensors",), (".pt", ".pth", ".bin")
WEIGHT_FILES = (*SAFETENSORS, *ARCHIVES)
MAX_TENSORS = 100_000  # a model of a thousand layers has some ten thousand
A_PAGE = ("it is a web page", "download the file itself, not its page.")
AN_ERROR = ("it is a server's error", "download it again, with access to it.")
STAND_INS = (
    (b"version https://git-lfs", "it is a pointer of Git LFS", "bring the file: git lfs pull."),
    *((start, *A_PAGE) for start in (b"<!doctype html", b"<html", b"<!--")),
    *((start, *AN_ERROR) for start in (b'{"error', b"<?xml", b"<error")),
    (b"{", "it is JSON", "give the weights themselves."),
)
CUT_OFF = ("truncated", "unexpected EOF")  # in what readers say of a file that ends too early
MAX_HEADER_BYTES = 100_000_000  # of safetensors, by their own reader
ZIP_START, BOM = b"PK\x03\x04", b"\xef\xbb\xbf"
CONTAINERS = ("state_dict", "model", "module", "model_state_dict")  # weights among other things
WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile prepend


class WeightsRefused(ValueError):
    """Weights that cannot become the asked model; `problems` has every reason."""

    SHOWN = 30

    def __init__(self, what: str, problems: list[str], advice: str) -> None:
        more = len(problems) - self.SHOWN
        listed = [*problems[: self.SHOWN], *([f"and {more} more"] if more > 0 else [])]
        super().__init__("\n  - ".join([f"{what} {advice}", *listed]))
        self.problems = problems


@dataclass(frozen=True)
class Source:
    """The content of a weight file."""

    file: Path
    tensors: Mapping[str, Tensor]
    ignored: Mapping[str, str] = field(default_factory=dict)  # what is no weight, and why


def read_source(path: Path) -> Source:
    """The tensors of a file, or of the only weight file of a folder.

    `.safetensors` holds nothing but tensors. Torch archives are opened with `weights_only`, and
    TorchScript archives by a reader of their tensors, so no code of the file ever runs.

    Raises:
        FileNotFoundError: nothing is there.
        WeightsRefused: no or several weight files, or a file that is more than weights.
    """
    file = _weight_file(path)
    content = _read(file)
    ignored: dict[str, str] = {}
    for name in CONTAINERS:
        if isinstance(content.get(name), Mapping):
            ignored |= {other: f"beside the weights '{name}'" for other in content if other != name}
            content = content[name]
            break
    if len(content) > MAX_TENSORS:
        raise WeightsRefused(
            f"{file} holds {len(content)} entries:",
            [f"at most {MAX_TENSORS} are read"],
            "give the weights of one model.",
        )
    strays = [
        f"{brief(name)}: {type(value).__name__}"
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if strays:
        raise WeightsRefused(
            f"{file} holds what is no tensor with a name:", strays, "save its state dict alone."
        )
    return Source(file, _unwrapped(content), ignored)


NUMBERS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def unusable(tensor: Tensor) -> str:
    """Why a tensor cannot be a weight, or nothing."""
    if tensor.is_meta:
        return "on the device meta, so that it has no numbers"
    if tensor.layout != torch.strided:
        return f"sparse ({tensor.layout}), not dense"
    if tensor.is_quantized or tensor.dtype not in NUMBERS:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in NUMBERS)
        return f"of type {str(tensor.dtype).removeprefix('torch.')}, not {known}"
    return ""


def read_settings(path: Path, name: str) -> dict[str, Any]:
    """The JSON file `name` beside the weights; empty where there is none."""
    file = (path if path.is_dir() else path.parent) / name
    if not file.is_file():
        return {}
    try:
        return read_json_object(file)
    except JsonError as error:
        reason = str(error).removeprefix(f"{file}: ")
        raise WeightsRefused(
            f"{file} is not the description of a model:", [reason], "restore it."
        ) from None


def _weight_file(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}; give a file or a folder with one")
    if path.is_file():
        return path
    if not path.is_dir():
        raise WeightsRefused(f"{path} is no file:", [], "give a file or a folder with one.")
    found = sorted(
        file for file in path.iterdir() if file.suffix in WEIGHT_FILES and file.is_file()
    )
    tensors_only = [file for file in found if file.suffix in SAFETENSORS]
    if len(tensors_only or found) != 1:
        raise WeightsRefused(
            f"{path} must hold one weight file ({', '.join(WEIGHT_FILES)}), not {len(found)}:",
            [file.name for file in found],
            "name the file itself.",
        )
    return (tensors_only or found)[0]


def _read(file: Path) -> Mapping[str, Any]:
    _refuse_stand_ins(file)
    try:
        content = load_file(file) if file.suffix in SAFETENSORS else _read_archive(file)
    except MemoryError:
        raise WeightsRefused(
            f"{file} asks for more memory than there is:",
            [f"the file itself has {file.stat().st_size} bytes"],
            "it is damaged, or no weights: fetch it again.",
        ) from None
    except Exception as error:  # readers of pickles and zip files raise anything on damaged ones
        reason = brief(f"{type(error).__name__}: {error}")
        if isinstance(error, EOFError) or any(word in str(error) for word in CUT_OFF):
            what, advice = "is cut off:", "fetch it again, to its end."
        elif file.suffix in SAFETENSORS:
            what, advice = "cannot be read as safetensors:", "it is damaged: fetch it again."
        else:
            what = "is not a file of weights alone, and code in it is never run:"
            advice = "save its state dict as safetensors where you trust it."
        raise WeightsRefused(f"{file} {what}", [reason], advice) from error
    if not isinstance(content, Mapping):
        raise WeightsRefused(
            f"{file} holds a {type(content).__name__}, not weights by name:",
            [],
            "save its state dict.",
        )
    return content


def _refuse_stand_ins(file: Path) -> None:
    """Refuse what often lies where weights should be, with advice that helps."""
    with file.open("rb") as opened:
        start = opened.read(512)
    text = start.removeprefix(BOM).lstrip().lower()
    if not text:
        num_bytes = file.stat().st_size
        raise WeightsRefused(f"{file} is empty:", [f"{num_bytes} bytes"], "fetch it again.")
    for begins, what, advice in STAND_INS:
        if text.startswith(begins):
            raise WeightsRefused(f"{file} holds no weights:", [what], advice)
    reason = _cut_off(file, start)
    if reason:
        raise WeightsRefused(f"{file} is cut off:", [reason], "fetch it again, to its end.")


def _cut_off(file: Path, start: bytes) -> str:
    """How a file is known to end too early, or nothing."""
    if start.startswith(ZIP_START):
        try:
            has_end = zipfile.is_zipfile(file)
        except zipfile.BadZipFile:  # it has one, and that is damaged
            has_end = True
        return "" if has_end else "a zip archive without the list at its end"
    if file.suffix not in SAFETENSORS:
        return ""
    num_bytes = file.stat().st_size
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER_BYTES or (start[8:] and not start[8:].startswith(b"{")):
        return ""  # no safetensors at all
    if num_bytes < 8 + length:
        return f"{num_bytes} bytes, its header alone has {length}"
    with file.open("rb") as opened:
        header = opened.read(8 + length)[8:]
    try:
        tensors = parse_json(header).values()
        end = max(tensor["data_offsets"][1] for tensor in tensors if "data_offsets" in tensor)
    except (JsonError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return ""  # its reader tells what is wrong
    wanted = 8 + length + end if isinstance(end, int) else 0
    return f"{num_bytes} of {wanted} bytes" if num_bytes < wanted else ""


def _read_archive(file: Path) -> Any:
    is_zip = zipfile.is_zipfile(file)
    if is_zip:
        with zipfile.ZipFile(file) as archive:
            is_script = is_torchscript(archive)
        if is_script:
            return read_torchscript(file)
    return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return dict(tensors)


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


# The tensors of a TorchScript archive, such as OpenAI's CLIP, without running any of its code.
#
# An archive is a zip of `data.pkl` (the modules as nested objects), `data/<n>` (the numbers) and
# code. Here a module becomes a bare holder of attributes, and any name outside a short list is
# refused; the archive's own code is never read.


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
