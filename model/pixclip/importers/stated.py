"""What shapes cannot show: what a source says of its model, compared with ours."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pixclip.config import ModelConfig
from pixclip.importers.formats import FORMATS
from pixclip.importers.rules import Facts, Format
from pixclip.importers.source import read_settings
from pixclip.json_files import brief

POOLING = "tok"  # open_clip's word: our towers embed the state of the class token
# Where the two public descriptions have the sizes of their tower.
SIZES = {
    "width": ("width", "hidden_size"),
    "num_layers": ("layers", "num_hidden_layers"),
    "patch_size_px": ("patch_size",),
    "image_size_px": ("image_size",),
}


def compare_facts(format_: Format, path: Path, config: ModelConfig) -> tuple[list[str], list[str]]:
    """Contradictions between a source and our configuration, and what is taken on trust.

    A description beside the weights counts whatever the format: files of one project are often
    taken in the format of another, whose own facts they do not have.

    Raises:
        WeightsRefused: the format's own description cannot be read.
    """
    problems: list[str] = []
    assumed: list[str] = []
    kind = config.vision.kind
    if format_.kind != kind:
        problems.append(f"architecture: '{format_.name}' is for {format_.kind}, not {kind}")
    descriptions = {name: read_settings(path, name) for name in format_.settings_files}
    try:
        facts = format_.facts(descriptions, config.vision)
    except ValueError as error:
        return [*problems, f"{' or '.join(descriptions)}: {error}"], assumed
    problems += _differences(facts, config, "the source has")
    if not any(descriptions.values()):
        for name, other in _others(format_, path, config):
            problems += _differences(other, config, f"{name} beside the weights has")
    for name, value in asdict(facts).items():
        if value is None and not (name == "rope_grid" and kind == "clip"):
            setting, ours = _our_setting(name, config)
            assumed.append(f"{setting}={ours}: the source does not tell")
    return problems, assumed


def _differences(facts: Facts, config: ModelConfig, who: str) -> Iterator[str]:
    for name, value in asdict(facts).items():
        setting, ours = _our_setting(name, config)
        if value is not None and value != ours:
            yield f"setting: {who} {name}={brief(value)}, {setting} is {ours}"


def _others(format_: Format, path: Path, config: ModelConfig) -> Iterator[tuple[str, Facts]]:
    """What descriptions of other formats say, if they are of a tower of our sizes."""
    for other in FORMATS.values():
        is_new = other is not format_ and other.kind == format_.kind and other.settings_files
        if not is_new:
            continue
        try:
            descriptions = {name: read_settings(path, name) for name in other.settings_files}
            if _is_of_our_sizes(descriptions[other.settings_files[0]], config):
                yield other.settings_files[0], other.facts(descriptions, config.vision)
        except ValueError:  # another format's file: it is not asked for
            continue


def _is_of_our_sizes(description: Mapping[str, Any], config: ModelConfig) -> bool:
    sections: list[Any] = [description.get("vision_config"), description.get("model_cfg")]
    inner = [section.get("vision_cfg") for section in sections if isinstance(section, Mapping)]
    tower = next((one for one in [*inner, *sections] if isinstance(one, Mapping)), {})
    found = {ours: tower[name] for ours, names in SIZES.items() for name in names if name in tower}
    return bool(found) and all(getattr(config.vision, name) == size for name, size in found.items())


def _our_setting(fact: str, config: ModelConfig) -> tuple[str, object]:
    """Where our configuration has what a fact is about, and its value there."""
    if fact == "pooling":
        return "the tower's pooling", POOLING
    if fact in ("mean", "std"):
        return f"preprocess.{fact}", getattr(config.preprocess, fact)
    return f"vision.{fact}", getattr(config.vision, fact)
