"""Make the model that training starts from: `pixclip init-model --text-tower … --parent …`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from components.core.digests import RECEIPT_NAME
from components.core.errors import InputError, SettingsError
from components.core.step import In, Metrics, Out, StepSettings, place, step

if TYPE_CHECKING:
    from pixclip.config import ModelConfig
    from pixclip.importers import ImportReport
    from pixclip.model import PixClip

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
    "pixclip",
]


class InitModelSettings(StepSettings):
    """What the model is and where its weights are from."""

    recipe: str = Field("tiny", description="recipe whose model is made: the one of train.recipe")
    weights: str = place(
        "", description="file or folder of public weights; empty: weights drawn at random"
    )
    format: Format = Field(
        "",
        description=(
            "form of the weights: openai, open_clip, huggingface, eva_clip, timm, llm2clip, "
            "alphaclip or pixclip"
        ),
    )
    weights_sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="SHA-256 that the weights' file must have; empty takes any",
    )
    new_projection: bool = Field(
        False,
        description="draw the projection anew, where the recipe's embed_dim is not the weights'",
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
        if not self.weights and (self.new_projection or self.weights_sha256):
            raise ValueError("new_projection and weights_sha256 are for imported weights")
        return self


@step(image="train", version=2)
def init_model(text_tower: In, parent: Out, settings: InitModelSettings) -> Metrics:
    """Make the model that training starts from, of public weights or at random.

    The mask convolution of a new model is zero: it equals its parent exactly. `notes.json` of the
    checkpoint says of every key of imported weights what became of it.
    """
    from pixclip.checkpoint import CheckpointError, save_checkpoint

    model = build(text_tower, settings)
    report = import_public(model, settings) if settings.weights else None
    notes = {
        "recipe": settings.recipe,
        "seed": settings.seed,
        "import_report": report.to_dict() if report else None,
    }
    is_ours = (text_tower / RECEIPT_NAME).is_file()  # else somebody's files, never linked
    try:
        save_checkpoint(parent, model, text_tower=text_tower, notes=notes, link=is_ours)
    except CheckpointError as error:
        raise InputError(f"init_model: {error}") from None
    return count(model, report)


def model_config(text_tower: Path, settings: InitModelSettings) -> "ModelConfig":
    """The model of the recipe on this text tower.

    Raises:
        SettingsError: no such recipe.
        InputError: the folder is no text tower.
    """
    from pixclip.config import ARCHITECTURES, ModelConfig, PreprocessConfig
    from pixclip.importers import find_format
    from pixclip.text.encoder import read_text_tower
    from pixclip.training.recipes import RECIPES

    if settings.recipe not in RECIPES:
        raise SettingsError(
            f"init_model.recipe: no recipe '{settings.recipe}'; known are {', '.join(RECIPES)}"
        )
    recipe = RECIPES[settings.recipe]
    try:
        text, _ = read_text_tower(text_tower)
    except ValueError as error:
        raise InputError(f"init_model: {error}") from None
    vision = ARCHITECTURES[recipe.architecture].changed(
        embed_dim=recipe.embed_dim,
        mask_bias=bool(settings.format) and find_format(settings.format).mask_bias,
    )
    return ModelConfig(
        vision=vision,
        text=text,
        adaptor=recipe.adaptor,
        preprocess=PreprocessConfig(crop_margin=settings.crop_margin),
        name=recipe.name,
    )


def build(text_tower: Path, settings: InitModelSettings) -> "PixClip":
    """A model of random weights that depend on the seed alone."""
    import torch

    from pixclip.model import PixClip
    from pixclip.training.recipes import RECIPES

    config = model_config(text_tower, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = PixClip(config)
    torch.nn.init.constant_(model.logit_scale, RECIPES[settings.recipe].logit_scale)
    return model


def import_public(model: "PixClip", settings: InitModelSettings) -> "ImportReport":
    """Fill the model with the weights of the settings.

    Raises:
        InputError: no weights there, other weights than asked for, or weights that do not fit.
    """
    from pixclip.importers import WeightsRefused, import_weights

    path = Path(settings.weights)
    try:
        report = import_weights(
            model, path, settings.format, new_projection=settings.new_projection
        )
    except (OSError, WeightsRefused) as error:
        raise InputError(f"init_model.weights: {error}") from None
    if settings.weights_sha256 not in ("", report.sha256):
        raise InputError(
            f"init_model.weights: {path} has SHA-256 {report.sha256}, weights_sha256 is "
            f"{settings.weights_sha256}; bring the right file or change the setting"
        )
    return report


def count(model: "PixClip", report: "ImportReport | None") -> Metrics:
    """Numbers in the model, those that were imported and those that are new."""
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    imported = {key.target for key in report.used} if report else set()
    num_imported = sum(sizes[name] for name in imported)
    num_parameters = sum(sizes.values())
    return {
        "num_parameters": num_parameters,
        "num_imported": num_imported,
        "num_new": num_parameters - num_imported,
    }
