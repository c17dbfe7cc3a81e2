"""A causal language model of transformers that reads in both directions (LLM2Vec, step 1)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pixclip.json_files import brief, read_json_object, shown

# B = texts, N = tokens, E = width of the language model
MODEL_CONFIG = "config.json"
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
# By a part of a field's name: far beyond any model, and built in no time.
MOST: tuple[tuple[str, int], ...] = (
    ("layer", 1024),
    ("head", 65_536),
    ("expert", 65_536),
    ("hidden", 1_048_576),
    ("intermediate", 16_777_216),
    ("vocab", 16_777_216),
    ("width", 1_048_576),
    ("dim", 1_048_576),
)
MOST_OF_ALL = 2**40  # anything else: tokens of context, bases of rotary angles
PICKLE_NAME = "adapter_model.bin"  # the only one that `use_safetensors` does not keep out


def open_language_model(
    source: str | Path,
    *,
    revision: str = "main",
    with_head: bool,
    dtype: torch.dtype | None = None,
    num_layers: int = 0,
) -> Any:
    """The model at `source` (a folder or a name on the Hugging Face Hub), reading both ways.

    Only safetensors are read and no code of the model's repository is run; on the Hub, though,
    transformers reads what a model's index names, so take a model there from those you trust.
    `dtype` None keeps the checkpoint's own. `num_layers` keeps the lowest layers only; 0 keeps all.

    Raises:
        ValueError: weights are missing or do not fit, the folder holds a pickle or an index that
            leads to anything but safetensors in the same folder, the model still reads one way
            only, or it has fewer layers than `num_layers`.
        OSError: there is no such model.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    kind: Any = AutoModelForCausalLM if with_head else AutoModel
    model, report = _read(kind, source, revision=revision, dtype=dtype or "auto")
    _require_complete(source, report)
    if num_layers:
        _keep_lowest_layers(model, num_layers)
    model.config.is_causal = False  # saved: transformers itself then builds masks for both ways
    model.config.use_cache = False
    _require_both_ways(model)
    return model.eval()


def _read(kind: Any, source: str | Path, **options: Any) -> tuple[Any, Any]:
    """A model and what became of its weights; nothing but safetensors, no code of a repository."""
    is_here = Path(source).is_dir()  # else a download shows how far it is
    if is_here:
        _require_safetensors_only(Path(source))
        require_plausible(Path(source))
    bars = without_bars() if is_here else contextlib.nullcontext()
    with damage_told(f"the language model {source}"), bars:
        model, report = kind.from_pretrained(
            str(source),
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            output_loading_info=True,
            **options,
        )
    return model, report


@contextlib.contextmanager
def damage_told(what: str) -> Iterator[None]:
    """What transformers and its parsers raise on damaged files as an error that names them.

    Raises:
        ValueError: anything was raised but OSError, which names its file itself.
    """
    try:
        yield
    except (OSError, ImportError):
        raise
    except SafetensorError as error:
        raise ValueError(f"the weights of {what} are damaged: {shown(error)}") from None
    except MemoryError:
        raise ValueError(f"{what} needs more memory than there is; is it damaged?") from None
    except Exception as error:  # a parser in Rust raises bare exceptions
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{what} cannot be opened: {brief(reason)}") from error


def require_plausible(folder: Path) -> None:
    """Refuse a configuration that asks for more than any language model has, before it is built.

    Raises:
        ValueError: names file, field and limit, or what the weights hold.
    """
    path = folder / MODEL_CONFIG
    config = read_json_object(path)
    numbers = list(_numbers(config, ""))
    for name, number in numbers:
        last = name.rpartition(".")[2]
        limit = next((most for part, most in MOST if part in last), MOST_OF_ALL)
        if abs(number) > limit:
            raise ValueError(f"{path}: {name} must be at most {limit}, got {shown(number)}")
    depths = (number for name, number in numbers if name.rpartition(".")[2] in LAYERS)
    num_layers = max(depths, default=0)
    num_tensors = sum(_num_tensors(file) for file in folder.glob("*.safetensors"))
    if num_layers > num_tensors > 0:
        raise ValueError(
            f"{path} describes {num_layers} layers, and the weights beside it are {num_tensors} "
            "tensors; bring a configuration and weights that belong together"
        )


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def _num_tensors(file: Path) -> int:
    """The number of tensors in a safetensors file; none if it has no header."""
    try:
        with safe_open(str(file), framework="pt") as opened:
            return len(opened.keys())
    except (OSError, SafetensorError):
        return 0  # reported when it is read


def _require_safetensors_only(folder: Path) -> None:
    """transformers reads any file that an index names: pickles, and files of other folders."""
    if (folder / PICKLE_NAME).exists():
        raise ValueError(f"{folder} holds {PICKLE_NAME}, a pickle, which is never read; remove it")
    for index in sorted(folder.rglob("*.safetensors.index.json")):
        strays = [name for name in _shard_names(index) if not _is_safetensors_here(name)]
        if strays:
            raise ValueError(
                f"{index} names {', '.join(map(shown, strays[:5]))}; every part of the weights "
                "must be a .safetensors file in the same folder: do not use weights that were "
                "tampered with, or save them anew"
            )


def _shard_names(index: Path) -> list[Any]:
    try:
        content = read_json_object(index)
        names = list(dict.fromkeys(content["weight_map"].values()))
        dict(content["metadata"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index} is no index of weights ({shown(error)}): it needs `metadata` and "
            "`weight_map`, from names of weights to names of files; restore it"
        ) from None
    return names


def _is_safetensors_here(name: Any) -> bool:
    return isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Leave out transformers' progress bars of reading and writing files on this machine."""
    from transformers.utils import logging

    were_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            logging.enable_progress_bar()


def read_both_ways(body: Any, ids_BN: Tensor, is_token_BN: Tensor) -> Tensor:
    """The last hidden states [B, N, E] of a model body; every token sees every token.

    The mask is always given in full: transformers leaves it out of a batch without padding, and
    another attention kernel, with other rounding, would run.
    """
    length = ids_BN.shape[1]
    sees_B1NN = is_token_BN[:, None, None, :].expand(-1, 1, length, -1)
    output = body(input_ids=ids_BN, attention_mask=sees_B1NN, use_cache=False)
    hidden_BNE: Tensor = output.last_hidden_state
    return hidden_BNE


def _keep_lowest_layers(model: Any, num_layers: int) -> None:
    """Drop the upper layers, in the configuration too; the norm after the last layer stays."""
    body, config = model.base_model, model.config
    if num_layers > len(body.layers):
        raise ValueError(f"the model has {len(body.layers)} layers, num_layers is {num_layers}")
    body.layers = body.layers[:num_layers]
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]


@torch.no_grad()
def _require_both_ways(model: Any) -> None:
    """Change the last token and see the first position's state change."""
    body = model.eval().base_model
    ids_BN = torch.ones(2, 4, dtype=torch.long, device=body.device)
    ids_BN[1, 3] = 0
    hidden_BNE = read_both_ways(body, ids_BN, torch.ones_like(ids_BN, dtype=torch.bool))
    if torch.equal(hidden_BNE[0, 0], hidden_BNE[1, 0]):
        raise ValueError(
            f"{type(model).__name__} does not take a full attention mask, so it cannot read in "
            "both directions; take a model of another architecture (Llama, Mistral, Qwen …)"
        )


def _require_complete(source: str | Path, report: Any) -> None:
    faults = [*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])]
    if faults:
        raise ValueError(
            f"{source} lacks {len(faults)} weight(s) of its own architecture, or they have another "
            f"shape: {', '.join(sorted(faults)[:5])}; the checkpoint is damaged or of another class"
        )
