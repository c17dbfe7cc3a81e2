"""Make the model that training starts from: `pixclip init-model --text-tower … --parent …`."""

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from components.core.digests import RECEIPT_NAME
from components.core.errors import InputError, SettingsError
from components.core.step import In, Metrics, Out, StepSettings, place, step

if TYPE_CHECKING:
    from pixclip.config import ClipTextConfig, ModelConfig, PreprocessConfig, VisionConfig
    from pixclip.importers import ImportReport
    from pixclip.model import PixClip
    from pixclip.training.config import AnyRecipe

log = logging.getLogger(__name__)

# The formats of pixclip.importers, which imports PyTorch and so is not imported here.
Format = Literal[
    "",
    "openai",
    "open_clip",
    "huggingface",
    "eva_clip",
    "timm",
    "llm2clip",
    "alphaclip",
    "longclip",
    "fgclip",
    "fgclip_short",
    "pixclip",
    "checkpoint",
]
OWN = "checkpoint"  # a model of ours, which goes on as it is
CHANGE_WEIGHTS = ("new_projection", "new_adaptor", "resize_positions", "text_weights")
NEED_WEIGHTS = ("weights_sha256", *CHANGE_WEIGHTS)
NEED_CLIP_TEXT = ("context_length", "num_fixed_positions", "text_weights", "text_format")


class InitModelSettings(StepSettings):
    """What the model is and where its weights are from."""

    recipe: str = Field(
        "tiny",
        description="recipe whose model is made: the one of train.recipe or train_parts.recipe",
    )
    architecture: str = Field(
        "",
        description=(
            "vision tower, if not the recipe's: clip_vit_b16, clip_vit_l14, clip_vit_l14_336, "
            "eva02_b16, eva02_l14, eva02_l14_336 or tiny"
        ),
    )
    embed_dim: int = Field(
        0,
        ge=0,
        description=(
            "width of the space shared with texts; 0: that of `architecture`, or the recipe's"
        ),
    )
    activation: Literal["", "quick_gelu", "gelu"] = Field(
        "", description="of CLIP's towers; empty: the architecture's, as OpenAI's or EVA-CLIP's"
    )
    pixel_mean: tuple[float, ...] = Field(
        (), max_length=3, description="mean of the weights' pixels by channel; empty: CLIP's"
    )
    pixel_std: tuple[float, ...] = Field(
        (), max_length=3, description="deviation of the weights' pixels by channel; empty: CLIP's"
    )
    text: Literal["language_model", "clip"] = Field(
        "language_model",
        description=(
            "what reads texts: the text tower's language model, or CLIP's own text transformer, "
            "whose tokenizer is then taken from the text tower's folder; recipes of PA-CLIP have "
            "the latter"
        ),
    )
    context_length: int = Field(
        0,
        ge=0,
        description=(
            "tokens of a text of CLIP's own tower; 77 can be stretched to 248; 0: the recipe's, "
            "or 77"
        ),
    )
    num_fixed_positions: int = Field(
        -1,
        ge=-1,
        description=(
            "first text positions that never train; 20 in Long-CLIP and FG-CLIP; -1: the recipe's, "
            "or none"
        ),
    )
    weights: str = place(
        "",
        description=(
            "file or folder of public weights, or the folder of a checkpoint of ours; empty: "
            "weights drawn at random"
        ),
    )
    format: Format = Field(
        "",
        description=(
            "form of the weights: openai, open_clip, huggingface, eva_clip, timm, llm2clip, "
            "alphaclip, longclip, fgclip, fgclip_short or pixclip (the authors' file); checkpoint: "
            "what train or train_parts wrote, e.g. of the stage before"
        ),
    )
    weights_sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="SHA-256 that the weights' file must have; empty takes any",
    )
    text_weights: str = place(
        "", description="weights of CLIP's own text tower, if `weights` have none, as AlphaCLIP's"
    )
    text_format: Format = Field("", description="form of text_weights; empty: openai")
    new_projection: bool = Field(
        False, description="draw the projection anew, where embed_dim is not the weights'"
    )
    new_adaptor: bool = Field(
        False,
        description="draw the text adaptor anew, where it was made for another language model",
    )
    resize_positions: bool = Field(
        False, description="interpolate the positions, where the weights' images have another side"
    )
    preprocess: Literal["", "clip", "alphaclip", "pixclip"] = Field(
        "",
        description=(
            "prepare images and masks as a public project's evaluation does, to repeat its "
            "numbers; such a model is not trained; empty: as training does"
        ),
    )
    crop_margin: float = Field(
        0.0,
        ge=0,
        description="room around a mask's box in its crop (I' of eq. 4), as a share of its sides",
    )
    seed: int = Field(0, description="seed of everything that is drawn at random")

    @model_validator(mode="after")
    def _weights_have_a_format(self) -> "InitModelSettings":
        if bool(self.weights) != bool(self.format):
            raise ValueError("weights and format go together: give both, or neither")
        useless = [name for name in NEED_WEIGHTS if getattr(self, name)]
        if useless and not self.weights:
            raise ValueError(f"{' and '.join(useless)} are for imported weights; give weights")
        refused = [name for name in CHANGE_WEIGHTS if getattr(self, name)]
        if self.format == OWN and refused:
            raise ValueError(f"format=checkpoint takes a model as it is, without {refused[0]}")
        if self.text_format == OWN:
            raise ValueError("text_format names public weights; format=checkpoint has both towers")
        return self

    @model_validator(mode="after")
    def _texts_are_read_so(self) -> "InitModelSettings":
        defaults = {name: type(self).model_fields[name].default for name in NEED_CLIP_TEXT}
        changed = [name for name, value in defaults.items() if getattr(self, name) != value]
        if changed and not self.reads_by_clip:
            raise ValueError(f"{' and '.join(changed)} are for CLIP's own text tower: text=clip")
        return self

    @property
    def reads_by_clip(self) -> bool:
        """Whether the model has CLIP's own text transformer."""
        from pixclip.training.recipes import PART_RECIPES

        return self.text == "clip" or self.recipe in PART_RECIPES


@step(image="train", version=3)
def init_model(text_tower: In, parent: Out, settings: InitModelSettings) -> Metrics:
    """Make the model that training starts from, of public weights or at random.

    The mask convolution of a new model is zero: it equals its parent exactly. `notes.json` says of
    every key of imported weights what became of it. With format=checkpoint a model of ours goes on,
    e.g. from a first stage on other data: it must be the recipe's in every size.
    """
    from pixclip.checkpoint import CheckpointError, read_notes, save_checkpoint

    report: ImportReport | None = None
    if settings.format == OWN:
        model, report = take_checkpoint(text_tower, settings)
    else:
        model = build(text_tower, settings)
        if settings.weights:
            report = import_public(model, settings)
    notes: dict[str, Any] = {
        "recipe": settings.recipe,
        "seed": settings.seed,
        "import_report": report.to_dict() if report else None,
    }
    if settings.format == OWN:
        notes["goes_on_from"] = before = read_notes(Path(settings.weights))
        if "import_report" in before:  # it was not trained: what was drawn there still is
            notes["import_report"] = before["import_report"]
    is_ours = (text_tower / RECEIPT_NAME).is_file()  # else somebody's files, never linked
    with tempfile.TemporaryDirectory() as scratch:
        if settings.reads_by_clip:
            text_tower, is_ours = _save_tokenizer(text_tower, Path(scratch), model), False
        try:
            save_checkpoint(parent, model, text_tower=text_tower, notes=notes, link=is_ours)
        except CheckpointError as error:
            raise InputError(f"init_model: {error}") from None
    return count(model, report)


def _save_tokenizer(source: Path, folder: Path, model: "PixClip") -> Path:
    from pixclip.text.clip_tokenizer import ClipTokenizer

    assert model.config.text.kind == "clip"
    ClipTokenizer.open(source, model.config.text).save(folder)
    return folder


def model_config(text_tower: Path, settings: InitModelSettings) -> "ModelConfig":
    """The model of the recipe and the settings on this text tower.

    Raises:
        SettingsError: no such recipe or architecture, or a value does not fit.
        InputError: the folder is no text tower, or has no tokenizer of CLIP's.
    """
    from pixclip.config import ARCHITECTURES, ModelConfig
    from pixclip.text.encoder import read_text_tower
    from pixclip.training.config import Recipe
    from pixclip.training.recipes import ALL_RECIPES

    for name, known in (("recipe", ALL_RECIPES), ("architecture", ARCHITECTURES)):
        value = getattr(settings, name)
        if value not in known and (value or name == "recipe"):
            raise SettingsError(
                f"init_model.{name}: no {name} '{value}'; known are {', '.join(known)}"
            )
    recipe = ALL_RECIPES[settings.recipe]
    vision, preprocess = _vision(recipe, settings), _preprocess(settings)
    if settings.reads_by_clip:
        text = _clip_text(text_tower, recipe, settings)
        return ModelConfig(
            vision=vision, text=text, adaptor=None, preprocess=preprocess, name=recipe.name
        )
    assert isinstance(recipe, Recipe), "recipes of PA-CLIP read texts by CLIP's tower"
    try:
        language_model, _ = read_text_tower(text_tower)
    except ValueError as error:
        raise InputError(f"init_model: {error}") from None
    return ModelConfig(
        vision=vision,
        text=language_model,
        adaptor=recipe.adaptor,
        preprocess=preprocess,
        name=recipe.name,
    )


def _vision(recipe: "AnyRecipe[Any]", settings: InitModelSettings) -> "VisionConfig":
    from pixclip.config import ARCHITECTURES
    from pixclip.importers import find_format

    is_public = settings.format not in ("", OWN)
    vision = ARCHITECTURES[settings.architecture or recipe.architecture]
    usual_dim = vision.embed_dim if settings.architecture else recipe.embed_dim
    try:
        return vision.changed(
            embed_dim=settings.embed_dim or usual_dim,
            activation=settings.activation or vision.activation,
            mask_bias=is_public and find_format(settings.format).mask_bias,
        )
    except ValueError as error:
        raise SettingsError(f"init_model: {error}") from None


def _preprocess(settings: InitModelSettings) -> "PreprocessConfig":
    from pixclip.config import PREPROCESS, PreprocessConfig

    base = PREPROCESS.get(settings.preprocess, PreprocessConfig())
    given = {"mean": settings.pixel_mean, "std": settings.pixel_std}
    try:
        pixels = {name: value for name, value in given.items() if value}
        return base.changed(crop_margin=settings.crop_margin, **pixels)
    except ValueError as error:
        raise SettingsError(f"init_model.pixel_mean and pixel_std: {error}") from None


def _clip_text(
    folder: Path, recipe: "AnyRecipe[Any]", settings: InitModelSettings
) -> "ClipTextConfig":
    from pixclip.config import clip_text_of
    from pixclip.text.clip_tokenizer import with_vocabulary_of
    from pixclip.training.config import PartRecipe

    if isinstance(recipe, PartRecipe) and not settings.architecture:
        text = recipe.text
    else:
        text = clip_text_of(settings.architecture or recipe.architecture)
    try:
        text = with_vocabulary_of(folder, text)
    except (OSError, ValueError) as error:
        raise InputError(f"init_model: {error}") from None
    try:
        return text.changed(
            activation=settings.activation or text.activation,
            context_length=settings.context_length or text.context_length,
            num_fixed_positions=text.num_fixed_positions
            if settings.num_fixed_positions < 0
            else settings.num_fixed_positions,
        )
    except ValueError as error:
        raise SettingsError(f"init_model: {error}") from None


def build(text_tower: Path, settings: InitModelSettings) -> "PixClip":
    """A model of random weights that depend on the seed alone."""
    import torch

    from pixclip.model import PixClip
    from pixclip.training.recipes import ALL_RECIPES

    config = model_config(text_tower, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = PixClip(config)
    torch.nn.init.constant_(model.logit_scale, ALL_RECIPES[settings.recipe].logit_scale)
    return model


def take_checkpoint(
    text_tower: Path, settings: InitModelSettings
) -> "tuple[PixClip, ImportReport]":
    """The model of a checkpoint of ours, under the name of the recipe.

    Raises:
        InputError: it is no checkpoint, another one than asked for, or of another model.
    """
    from pixclip.checkpoint import CheckpointError
    from pixclip.importers import WeightsRefused, import_checkpoint

    path, config = Path(settings.weights), model_config(text_tower, settings)
    try:
        model, report = import_checkpoint(path, config, text_tower)
    except (CheckpointError, WeightsRefused) as error:
        raise InputError(f"init_model.weights: {error}") from None
    _require_pinned(report, settings)
    return model, report


def import_public(model: "PixClip", settings: InitModelSettings) -> "ImportReport":
    """Fill the model with the weights of the settings, and tell what had to be assumed of them.

    Raises:
        InputError: no weights there, other weights than asked for, or weights that do not fit.
    """
    from pixclip.importers import ImportChoices, WeightsRefused, import_weights

    path = Path(settings.weights)
    choices = ImportChoices(
        new_projection=settings.new_projection,
        new_adaptor=settings.new_adaptor,
        resize_positions=settings.resize_positions,
        stretch_positions=settings.reads_by_clip,  # context_length asks for it
        text_path=Path(settings.text_weights) if settings.text_weights else None,
        text_format=settings.text_format or "openai",
    )
    try:
        report = import_weights(model, path, settings.format, choices)
    except (OSError, WeightsRefused) as error:
        raise InputError(f"init_model.weights: {error}") from None
    _require_pinned(report, settings)
    for change in report.changed:
        log.warning("init_model: %s", change)
    for fact in report.assumed:
        log.warning("init_model assumes %s", fact)
    return report


def _require_pinned(report: "ImportReport", settings: InitModelSettings) -> None:
    if settings.weights_sha256 not in ("", report.sha256):
        raise InputError(
            f"init_model.weights: {settings.weights} has SHA-256 {report.sha256}, weights_sha256 "
            f"is {settings.weights_sha256}; bring the right file or change the setting"
        )


def count(model: "PixClip", report: "ImportReport | None") -> Metrics:
    """Numbers in the model, those that were imported and those that are new."""
    from pixclip.importers.positions import whole_tables

    sizes = {name: tensor.numel() for name, tensor in whole_tables(model.state_dict()).items()}
    imported = {key.target for key in report.used} if report else set()
    num_imported = sum(sizes[name] for name in imported)
    num_parameters = sum(sizes.values())
    return {
        "num_parameters": num_parameters,
        "num_imported": num_imported,
        "num_new": num_parameters - num_imported,
    }
