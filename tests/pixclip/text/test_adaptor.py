"""The residual adaptor against its formula."""

import numpy as np
import torch
from scipy.special import erf

from pixclip.config import AdaptorConfig
from pixclip.text.adaptor import TextAdaptor


def _norm(x, module):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + module.eps)
    return scaled * module.weight.detach().numpy() + module.bias.detach().numpy()


def _linear(x, module):
    return x @ module.weight.detach().numpy().T + module.bias.detach().numpy()


def test_the_adaptor_is_its_formula():
    torch.manual_seed(0)
    adaptor = TextAdaptor(12, 5, AdaptorConfig(num_layers=2)).double()
    for parameter in adaptor.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    pooled = torch.randn(3, 12, dtype=torch.float64)
    x = pooled.numpy() / np.linalg.norm(pooled.numpy(), axis=1, keepdims=True)
    for block in adaptor.blocks:
        hidden = _linear(_norm(x, block.norm), block.fc1)
        x = x + _linear(0.5 * hidden * (1 + erf(hidden / np.sqrt(2))), block.fc2)
    expected = _linear(_norm(x, adaptor.norm), adaptor.projection)
    np.testing.assert_allclose(adaptor(pooled).detach().numpy(), expected, rtol=1e-9)


def test_the_scale_of_the_language_model_does_not_matter():
    adaptor = TextAdaptor(12, 5, AdaptorConfig())
    pooled = torch.randn(3, 12)
    torch.testing.assert_close(adaptor(pooled), adaptor(100 * pooled))


def test_the_papers_adaptor_has_274_million_parameters():
    with torch.device("meta"):
        adaptor = TextAdaptor(4096, 1280, AdaptorConfig())
    assert round(sum(p.numel() for p in adaptor.parameters()) / 1e6, 1) == 273.8
