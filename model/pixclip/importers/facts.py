"""What a source states of its model beyond its shapes, compared with our configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pixclip.config import ClipTextConfig, ModelConfig
from pixclip.importers.formats import FORMATS
from pixclip.importers.rules import Facts, Format
from pixclip.importers.source import Source, read_settings
from pixclip.json_files import brief

Towers = tuple[str, ...]  # "vision", "text"
POOLING = "tok"  # open_clip's word: our towers embed the state of the class token
# Where the two public descriptions have the sizes of their tower.
SIZES = {
    "width": ("width", "hidden_size"),
    "num_layers": ("layers", "num_hidden_layers"),
    "patch_size_px": ("patch_size",),
    "image_size_px": ("image_size",),
}


def compare_facts(
    format_: Format, source: Source, config: ModelConfig, towers: Towers, *, any_size: bool = False
) -> tuple[list[str], list[str]]:
    """Contradictions between a source and our configuration, and what is taken on trust.

    A description beside the weights counts whatever the format: files of one project are often
    taken in the format of another, whose own facts they do not have. Facts about `towers` count;
    with `any_size` the side of the images does not.

    Raises:
        WeightsRefused: the format's own description cannot be read.
    """
    problems: list[str] = []
    kind = config.vision.kind
    if format_.kind != kind and "vision" in towers:
        problems.append(f"architecture: '{format_.name}' is for {format_.kind}, not {kind}")
    path = source.file
    descriptions = {name: read_settings(path, name) for name in format_.settings_files}
    try:
        facts = format_.facts(descriptions, config)
    except ValueError as error:
        return [*problems, f"{' or '.join(descriptions)}: {error}"], []
    compared = [("the source has", facts)]
    if not any(descriptions.values()):
        others = _others(format_, path, config, any_size)
        compared += [(f"{name} beside the weights has", other) for name, other in others]
    for who, stated in compared:
        problems += _differences(stated, config, who, towers, any_size)
    assumed = [
        f"{setting}={ours}: the source does not tell"
        for setting, value, ours in _stated(facts, config, towers)
        if value is None
    ]
    is_marked = all(mark in source.tensors for mark in format_.marks)
    if not is_marked and len(compared) == 1:
        assumed += [
            f"{setting}={ours}: as all weights of '{format_.name}'; other projects' weights have "
            "the same names"
            for setting, value, ours in _stated(facts, config, towers)
            if value is not None
        ]
    return problems, assumed


def _stated(facts: Facts, config: ModelConfig, towers: Towers) -> Iterator[tuple[str, Any, Any]]:
    """Setting, what the source says of it, and what our configuration has."""
    if "vision" in towers:
        yield from _stated_of_vision(facts, config)
    if "text" in towers:
        assert isinstance(config.text, ClipTextConfig)
        for name in (field.name for field in fields(facts.text)):
            yield f"text.{name}", getattr(facts.text, name), getattr(config.text, name)


def _stated_of_vision(facts: Facts, config: ModelConfig) -> Iterator[tuple[str, Any, Any]]:
    for name in ("activation", "num_heads", "layer_norm_eps", "rope_grid", "image_size_px"):
        if name != "rope_grid" or config.vision.kind == "eva02":
            yield f"vision.{name}", getattr(facts, name), getattr(config.vision, name)
    yield "the tower's pooling", facts.pooling, POOLING
    for name in ("mean", "std"):
        yield f"preprocess.{name}", getattr(facts, name), getattr(config.preprocess, name)


def _differences(
    facts: Facts, config: ModelConfig, who: str, towers: Towers, any_size: bool
) -> Iterator[str]:
    for setting, value, ours in _stated(facts, config, towers):
        is_free = any_size and setting == "vision.image_size_px"
        if value is not None and value != ours and not is_free:
            yield f"setting: {who} {setting.rpartition('.')[2]}={brief(value)}, {setting} is {ours}"
    for tower, misfits in (("vision", facts.misfits), ("text", facts.text_misfits)):
        if tower in towers:
            yield from (f"setting: {who} {misfit}" for misfit in misfits)


def _others(
    format_: Format, path: Path, config: ModelConfig, any_size: bool
) -> Iterator[tuple[str, Facts]]:
    """What descriptions of other formats say, if they are of a tower of our sizes."""
    kind = format_.kind
    described = {
        f.settings_files[0]: f for f in FORMATS.values() if f.settings_files and f.kind == kind
    }
    for name, other in described.items():
        if name in format_.settings_files:
            continue
        try:
            descriptions = {name: read_settings(path, name) for name in other.settings_files}
            if _is_of_our_sizes(descriptions[name], config, any_size):
                yield name, other.facts(descriptions, config)
        except ValueError:  # another format's file: it is not asked for
            continue


def _is_of_our_sizes(description: Mapping[str, Any], config: ModelConfig, any_size: bool) -> bool:
    sections: list[Any] = [description.get("vision_config"), description.get("model_cfg")]
    inner = [section.get("vision_cfg") for section in sections if isinstance(section, Mapping)]
    tower = next((one for one in [*inner, *sections] if isinstance(one, Mapping)), {})
    found = {ours: tower[name] for ours, names in SIZES.items() for name in names if name in tower}
    if any_size:
        found.pop("image_size_px", None)
    return bool(found) and all(getattr(config.vision, name) == size for name, size in found.items())
