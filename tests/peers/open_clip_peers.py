"""Write random open_clip models, inputs and their embeddings; runs where open_clip is installed.

    .venv-peers/bin/python tests/peers/open_clip_peers.py --into FOLDER [--small]

One safetensors file a model: `weights/<key>` in the peer's own keys, `images`, `embeddings`, and
`token_ids`, `text_embeddings` where it reads texts. The small ones are the golden files of
tests/pixclip/importers/golden.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

# torchvision's compiled part does not fit the CPU build of torch; declaring its operators is
# enough for open_clip and timm to be imported.
TORCHVISION = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    TORCHVISION.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import open_clip  # noqa: E402
import timm.models.eva  # noqa: E402
from open_clip.model import CLIP, CustomTextCLIP  # noqa: E402

SMALL_TEXT = {"context_length": 8, "vocab_size": 20, "width": 8, "heads": 1, "layers": 1}


def small_vit(quick_gelu: bool) -> torch.nn.Module:
    """open_clip's own vision transformer, small."""
    vision = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16}
    return CLIP(16, vision, SMALL_TEXT, quick_gelu=quick_gelu)


class SmallEva(torch.nn.Module):
    """timm's EVA02 CLIP tower, small, below the name that open_clip gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = torch.nn.Module()
        self.visual.trunk = timm.models.eva.Eva(
            img_size=32,
            patch_size=8,
            embed_dim=32,
            depth=2,
            num_heads=2,
            num_classes=16,
            qkv_fused=False,
            mlp_ratio=4 * 2 / 3,
            swiglu_mlp=True,
            scale_mlp=True,
            scale_attn_inner=True,
            use_rot_pos_emb=True,
            ref_feat_shape=(16, 16),
            global_pool="token",
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        )

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings as open_clip computes them."""
        return self.visual.trunk(images)


def full(name: str) -> torch.nn.Module:
    """One of open_clip's models, with a small vocabulary."""
    config = open_clip.get_model_config(name)
    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    return kind(**(config | {"text_cfg": config["text_cfg"] | {"vocab_size": 20}}))


SMALL = {
    "vit_quick_gelu": partial(small_vit, quick_gelu=True),
    "vit_gelu": partial(small_vit, quick_gelu=False),
    "eva02": SmallEva,
}
FULL = {name: partial(full, name) for name in ("ViT-B-16-quickgelu", "ViT-B-16", "EVA02-B-16")}


@torch.no_grad()
def write(model: torch.nn.Module, image_size: int, file: Path) -> None:
    """Fill a model with random numbers and write it, two images and their embeddings."""
    model.eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    images = torch.randn(2, 3, image_size, image_size)
    weights = {f"weights/{key}": tensor.contiguous() for key, tensor in model.state_dict().items()}
    made = {"images": images, "embeddings": model.encode_image(images)}
    if hasattr(model, "encode_text"):
        token_ids = torch.zeros(2, model.context_length, dtype=torch.int64)
        token_ids[0, :6] = torch.tensor([18, 3, 1, 4, 2, 19])
        token_ids[1, :3] = torch.tensor([18, 7, 19])
        made |= {"token_ids": token_ids, "text_embeddings": model.encode_text(token_ids)}
    save_file(weights | made, file)


def main() -> None:
    """Write every model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="the golden files instead")
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    models, size = (SMALL, 32) if arguments.small else (FULL, 224)
    for name, build in models.items():
        write(build(), size, arguments.into / f"{name}.safetensors")


if __name__ == "__main__":
    main()
