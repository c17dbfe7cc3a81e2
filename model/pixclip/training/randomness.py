"""The states of the random generators as plain data, so that a resumed run draws the same."""

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """The generators of torch (every device), NumPy and Python."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(kind), [int(key) for key in keys], position, has_gauss, gauss],
        "python": [version, list(words), next_gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Go on from `random_state()`."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    version, words, next_gauss = state["python"]
    random.setstate((version, tuple(words), next_gauss))


def seed_all(seed: int) -> None:
    """Seed the generators of torch (every device), NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
