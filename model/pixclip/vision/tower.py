"""The vision tower: an image and a mask become an embedding, or one feature for every patch.

Legend: B samples (image and mask), U distinct images, H = W = image side in pixels where they
follow C or 1, P patches, N = P + 1 tokens ([CLS] first), W width elsewhere, D embedding width.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixclip.config import VisionConfig
from pixclip.vision.blocks import Block, clip_block, eva02_block, initialise

BLOCKS = {"clip": clip_block, "eva02": eva02_block}


class MaskEmbed(nn.Conv2d):
    """The mask's patch embedding. It starts at zero: a new model equals its parent exactly."""

    def reset_parameters(self) -> None:
        """Zero; the class does it so that no initialisation elsewhere can forget it."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class VisionTower(nn.Module):
    """A vision transformer with a mask patch embedding beside the image's (paper, eq. 1)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        width, patch = config.width, config.patch_size_px
        is_clip = config.kind == "clip"
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.position_embedding = nn.Parameter(torch.empty(config.grid**2 + 1, width))
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch, bias=not is_clip)
        self.mask_embed = MaskEmbed(1, width, patch, stride=patch, bias=config.mask_bias)
        eps = config.layer_norm_eps
        self.norm_pre = nn.LayerNorm(width, eps=eps) if is_clip else nn.Identity()
        self.blocks = nn.ModuleList(BLOCKS[config.kind](config) for _ in range(config.num_layers))
        self.norm_post = nn.LayerNorm(width, eps=eps)
        self.projection = nn.Linear(width, config.embed_dim, bias=not is_clip)
        initialise(self, config.num_layers)

    def forward(self, images_BCHW: Tensor, masks_B1HW: Tensor | None = None) -> Tensor:
        """Embeddings [B, D], not normalised; without masks the tower of the parent model."""
        return self.encode(self.tokens(images_BCHW, masks_B1HW))[0]

    def tokens(self, images_BCHW: Tensor, masks_B1HW: Tensor | None = None) -> Tensor:
        """What enters the blocks, [B, N, W]; `None` leaves the mask's term out."""
        return self._tokens(self._patches(images_BCHW), masks_B1HW)

    def tokens_of_regions(
        self, images_UCHW: Tensor, masks_B1HW: Tensor, image_index_B: Tensor
    ) -> Tensor:
        """[B, N, W] of masks of fewer images: an image's patches are embedded once."""
        return self._tokens(self._patches(images_UCHW)[image_index_B], masks_B1HW)

    def encode(self, tokens_BNW: Tensor, num_dense: int = 0) -> tuple[Tensor, Tensor]:
        """Embeddings [B - num_dense, D] and, of the last `num_dense` samples, patches [.., P, W].

        Patches are normalised but not projected: eq. 5 pools them first. For the other samples
        the last block computes [CLS] alone, which gives the same embedding for less work.
        """
        tokens_BNW = self._all_but_last_block(tokens_BNW)
        num_embedded = len(tokens_BNW) - num_dense
        cls_BW = self._run(self.blocks[-1], tokens_BNW[:num_embedded], 1)[:, 0]
        dense_BPW = self._run(self.blocks[-1], tokens_BNW[num_embedded:])[:, 1:]
        return self.project(self.norm_post(cls_BW)), self.norm_post(dense_BPW)

    def project(self, features_BW: Tensor) -> Tensor:
        """Features after the last norm, [B, W], to the shared space, [B, D]."""
        embeddings_BD: Tensor = self.projection(features_BW)
        return embeddings_BD

    def cls_attention(self, images_BCHW: Tensor, masks_B1HW: Tensor | None = None) -> Tensor:
        """How much [CLS] looks at each patch in the last block, [B, heads, P]."""
        tokens_BNW = self._all_but_last_block(self.tokens(images_BCHW, masks_B1HW))
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return last.cls_attention(tokens_BNW)

    def _patches(self, images_UCHW: Tensor) -> Tensor:
        images = images_UCHW.to(self.patch_embed.weight.dtype)
        patches_UPW: Tensor = self.patch_embed(images).flatten(2).transpose(1, 2)
        return patches_UPW

    def _tokens(self, patches_BPW: Tensor, masks_B1HW: Tensor | None) -> Tensor:
        if masks_B1HW is not None:
            masks = masks_B1HW.to(self.mask_embed.weight.dtype)
            patches_BPW = patches_BPW + self.mask_embed(masks).flatten(2).transpose(1, 2)
        cls_B1W = self.class_embedding.expand(len(patches_BPW), 1, -1)
        tokens_BNW = torch.cat([cls_B1W, patches_BPW], dim=1) + self.position_embedding
        normed_BNW: Tensor = self.norm_pre(tokens_BNW)
        return normed_BNW

    def _all_but_last_block(self, tokens_BNW: Tensor) -> Tensor:
        for block in self.blocks[:-1]:
            tokens_BNW = self._run(block, tokens_BNW)
        return tokens_BNW

    def _run(self, block: nn.Module, tokens_BNW: Tensor, num_queries: int | None = None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            output = checkpoint(block, tokens_BNW, num_queries, use_reentrant=False)
        else:
            output = block(tokens_BNW, num_queries)
        assert isinstance(output, Tensor)
        return output


def build_vision_tower(config: VisionConfig) -> VisionTower:
    """A tower of random weights whose mask embedding is zero."""
    return VisionTower(config)
