"""Small models of both kinds of tower, filled with random numbers everywhere."""

import pytest
import torch

from pixclip.config import AdaptorConfig, ClipTextConfig, ModelConfig, TextConfig, VisionConfig
from pixclip.model import PixClip

CLIP = VisionConfig(
    kind="clip",
    image_size_px=32,
    patch_size_px=8,
    width=64,
    num_layers=2,
    num_heads=1,
    mlp_width=96,
    embed_dim=16,
    activation="quick_gelu",
)
EVA02 = CLIP.changed(kind="eva02", activation="swiglu", layer_norm_eps=1e-6, mlp_width=40)


CLIP_TEXT = ClipTextConfig(
    context_length=77,
    vocab_size=40,
    width=64,
    num_heads=1,
    num_layers=3,
    mlp_width=80,
    end_token_id=39,
)
LONG_TEXT = CLIP_TEXT.changed(context_length=248, num_fixed_positions=20)


def build(vision: VisionConfig, seed: int = 0, text: ClipTextConfig | None = None) -> PixClip:
    """A model in which every tensor is random, the mask convolution too."""
    torch.manual_seed(seed)
    adaptor = None if text else AdaptorConfig(num_layers=4, expansion=2)
    config = ModelConfig(vision=vision, text=text or TextConfig(embed_dim=12), adaptor=adaptor)
    model = PixClip(config)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn_like(tensor) * 0.2)
    return model.eval()


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def masks() -> torch.Tensor:
    return torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(2))
