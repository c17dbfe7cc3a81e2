"""Collectives that know about gradients; with one rank they change nothing."""

import torch
import torch.distributed as dist
from torch import Tensor


def num_ranks() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, local: Tensor) -> Tensor:
        gathered = local.new_empty((num_ranks() * len(local), *local.shape[1:]))
        dist.all_gather_into_tensor(gathered, local.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        # Every rank used these rows in its own loss: their gradient is the sum over ranks.
        # Nothing is scaled here; the mean over ranks is taken where parameters are reduced.
        total = gradients[0].clone(memory_format=torch.contiguous_format)  # it may be shared
        dist.all_reduce(total)
        return total.chunk(num_ranks())[rank()]


def gather_rows(local: Tensor) -> Tensor:
    """The rows of all ranks, in the order of ranks; equal numbers of rows on each.

    The gradient of a local row is the sum of its gradients on all ranks, so that a loss that is
    averaged over ranks has the gradient of one rank with the whole batch.

    Args:
        local: [b, …].

    Returns:
        [b * num_ranks, …].
    """
    if num_ranks() == 1:
        return local
    gathered: Tensor = _GatherRows.apply(local)  # type: ignore[no-untyped-call]
    return gathered


def sum_over_ranks(values: Tensor) -> Tensor:
    """The element-wise sum over all ranks, without a gradient."""
    total = values.detach().clone()
    if num_ranks() > 1:
        dist.all_reduce(total)
    return total
