"""DeepSpeed ZeRO-2 below the training loops: the only module that knows it.

Every rank holds the whole model in float32 and a part of the optimiser's state. Mixed precision
is autocast: products in bf16, weights and the logit scale exact. On a CPU the ranks talk gloo.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pixclip.training.schedule import ParamGroup

Precision = Literal["fp32", "bf16"]
State = dict[str, Any]  # tensors, numbers and strings alone: it loads with `weights_only=True`


class Engine:
    """A module, its optimiser and the ranks that train it together."""

    def __init__(self, deepspeed_engine: Any, precision: Precision) -> None:
        self._engine, self._precision = deepspeed_engine, precision
        self.device: torch.device = deepspeed_engine.device
        self.peak_rates = [group["lr"] for group in self.param_groups]

    def __call__(self, *arguments: Any) -> Any:
        """The module's forward pass in the precision of the run."""
        with self.autocast():
            return self._engine(*arguments)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """What a forward pass runs in."""
        is_on = self._precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_on, cache_enabled=is_on)

    @property
    def param_groups(self) -> list[ParamGroup]:
        """The groups of the optimiser that really steps, with their rates and decays."""
        return cast(list[ParamGroup], self._engine.optimizer.param_groups)

    def set_rates(self, multiplier: float) -> None:
        """Set every group's learning rate to its peak times the schedule's multiplier."""
        for group, peak in zip(self.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * multiplier

    def rates(self) -> dict[str, float]:
        """The learning rate of each group by its name."""
        return {group["name"]: float(group["lr"]) for group in self.param_groups}

    def backward(self, loss: Tensor) -> None:
        """Gradients of a rank's loss; they are averaged over ranks."""
        self._engine.backward(loss)

    def step(self) -> float:
        """Update the weights on all ranks; the norm of the gradient before it was clipped.

        Raises:
            FloatingPointError: a gradient is not finite; the weights were not changed.
        """
        optimizer = self._engine.optimizer
        self._engine.step()
        if optimizer.overflow:
            raise FloatingPointError(
                "a gradient is not finite (inf or NaN), although the loss was; lower the learning "
                "rate, clip gradients (optimizer.max_grad_norm) or use precision=fp32"
            )
        return float(self._engine.get_global_grad_norm())

    def state(self) -> State:
        """This rank's share of the optimiser: exact weights and moments of its partition."""
        optimizer = self._engine.optimizer
        weights = [part.detach().clone() for part in optimizer.single_partition_of_fp32_groups]
        moments = optimizer.optimizer.state_dict()["state"]
        return {"weights": weights, "moments": moments}

    def load_state(self, state: State) -> None:
        """Continue from `state()` of the same rank among the same number of ranks.

        Raises:
            ValueError: it is of another model or another number of ranks.
        """
        optimizer = self._engine.optimizer
        parts = optimizer.single_partition_of_fp32_groups
        saved = state["weights"]
        if [part.shape for part in parts] != [part.shape for part in saved]:
            raise ValueError("the optimiser's state is of another model or number of ranks")
        for part, weights in zip(parts, saved, strict=True):
            part.data.copy_(weights)
        groups = optimizer.optimizer.state_dict()["param_groups"]
        optimizer.optimizer.load_state_dict({"state": state["moments"], "param_groups": groups})
        optimizer.update_lp_params()


def open_engine(
    module: nn.Module,
    param_groups: Sequence[ParamGroup],
    *,
    precision: Precision = "fp32",
    betas: tuple[float, float] = (0.9, 0.999),
    max_grad_norm: float = 0.0,
    use_gpus: bool = True,
) -> Engine:
    """An engine of AdamW and ZeRO-2 over the ranks that torchrun started, or a single one.

    Args:
        module: on any device; it is moved to this rank's.
        param_groups: as torch optimisers take them, each with its peak `lr`, `weight_decay` and
            a `name`. Parameters need at least one dimension.
        precision: of matrix products.
        betas: of AdamW.
        max_grad_norm: gradients are scaled down to this norm; 0 never.
        use_gpus: one for each rank, if there are any.
    """
    join_ranks(use_gpus=use_gpus)
    on_gpus = _is_on_gpus(use_gpus)
    deepspeed = _import_deepspeed(on_gpus)
    optimizer = torch.optim.AdamW(list(param_groups), betas=betas)
    config = {
        "train_micro_batch_size_per_gpu": 1,  # the loader makes batches; unused but required
        "zero_optimization": {"stage": 2, "overlap_comm": on_gpus},
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": max_grad_norm,
        "steps_per_print": 10**9,
    }
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    return Engine(engine, precision)


def _is_on_gpus(use_gpus: bool) -> bool:
    return use_gpus and torch.cuda.is_available()


def _import_deepspeed(on_gpus: bool) -> Any:
    if not on_gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when deepspeed is imported
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if not on_gpus:
        # It would compile a C++ operator for half a minute; gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def join_ranks(*, use_gpus: bool = True) -> None:
    """Join the ranks that torchrun started, or be a single one; to join again changes nothing.

    Until then every process takes itself for the only one.

    Args:
        use_gpus: one for each rank, if there are any.
    """
    on_gpus = _is_on_gpus(use_gpus)
    deepspeed = _import_deepspeed(on_gpus)
    if on_gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "nccl" if on_gpus else "gloo"
    if not dist.is_initialized() and "RANK" not in os.environ:
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)


@contextlib.contextmanager
def ranks_leave_together() -> Iterator[None]:
    """Close the connection between ranks at the end, in good order."""
    yield
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
