"""Whitening: what all captions have in common is taken out of their vectors.

The pooled states of a language model point in almost one direction: in SmolLM2's fourth layer, 90 %
of their length is the mean of all captions, and a few directions hold most of the rest. Whitening
(Su et al., arXiv:2103.15316) takes the mean out and evens the directions out, here to a share:

    y = (x/|x| - mean) U diag((λ / max λ)^(-share/2)) Uᵀ

with the eigenvectors U and eigenvalues λ of the covariance of the unit vectors x/|x|.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

WHITENING_NAME = "whitening.safetensors"
LEAST_VARIANCE = 1e-4  # of the largest; what varies less is raised no further

# n = captions, E = width of the language model


class Whitening:
    """A linear map of pooled states, float32."""

    def __init__(self, mean_E: Tensor, map_EE: Tensor) -> None:
        self._mean_E, self._map_EE = mean_E, map_EE

    @classmethod
    def fit(cls, pooled_nE: Tensor, share: float) -> "Whitening":
        """The map that evens out pooled states like these; share 0 takes out the mean alone.

        Raises:
            ValueError: there are fewer than two states, or the share is not in [0, 1].
        """
        if len(pooled_nE) < 2:
            raise ValueError(f"whitening needs at least two captions, got {len(pooled_nE)}")
        if not 0 <= share <= 1:
            raise ValueError(f"the share of whitening must be in [0, 1], got {share}")
        unit_nE = F.normalize(pooled_nE.double(), dim=-1)
        variance_E, directions_EE = torch.linalg.eigh(unit_nE.T.cov())
        largest = variance_E.max().clamp(min=torch.finfo(torch.float32).tiny)
        gain_E = (variance_E / largest).clamp(min=LEAST_VARIANCE) ** (-share / 2)
        map_EE = directions_EE @ torch.diag(gain_E) @ directions_EE.T
        return cls(unit_nE.mean(dim=0).float(), map_EE.float().contiguous())

    @classmethod
    def open(cls, folder: Path, embed_dim: int) -> "Whitening":
        """The map in the folder of a text tower.

        Raises:
            ValueError: there is none, or it is not of this width.
        """
        path = folder / WHITENING_NAME
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{path} cannot be read ({error}), and the text tower's settings say whitened: "
                "bring the whole folder"
            ) from None
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wanted = {"mean": (embed_dim,), "map": (embed_dim, embed_dim)}
        if found != wanted:
            raise ValueError(f"{path} must hold the tensors {wanted}, holds {found}")
        return cls(tensors["mean"].float(), tensors["map"].float())

    def save(self, folder: Path) -> None:
        """Write the map into the folder of a text tower."""
        save_file({"mean": self._mean_E, "map": self._map_EE}, folder / WHITENING_NAME)

    def __call__(self, pooled_BE: Tensor) -> Tensor:
        """Pooled states [B, E], evened out, in float32 on their device."""
        mean_E, map_EE = self._mean_E.to(pooled_BE.device), self._map_EE.to(pooled_BE.device)
        whitened_BE: Tensor = (F.normalize(pooled_BE.float(), dim=-1) - mean_E) @ map_EE
        return whitened_BE
