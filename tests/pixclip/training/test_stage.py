"""A toy objective through engine, loop, states and resume, which know losses by name alone."""

from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace

import torch
from torch import nn

from pixclip.training.engine import open_engine
from pixclip.training.job import read_steps
from pixclip.training.stage import StageRun, train_stage

SPEEDS = {"samples_per_s", "data_wait_share", "memory_gb"}


@dataclass(frozen=True)
class Points:
    x_B3: torch.Tensor

    @property
    def num_samples(self) -> int:
        return len(self.x_B3)

    def to(self, device) -> "Points":
        return Points(self.x_B3.to(device))


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight_31 = nn.Parameter(torch.zeros(3, 1))

    def forward(self, batch: Points) -> dict[str, torch.Tensor]:
        found_B1 = nn.functional.dropout(batch.x_B3, 0.1) @ self.weight_31
        error = (found_B1 - batch.x_B3.sum(dim=1, keepdim=True)).square().mean()
        size = self.weight_31.square().mean()
        return {"total": error + 0.01 * size, "error": error, "size": size}


def train(work, stop_after: int = 0) -> list[dict]:
    def batches_from(start_step: int):
        for step in count(start_step):
            drawn = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            yield step // 4, Points(drawn)

    torch.manual_seed(0)
    line, run = Line(), StageRun("toy", work, num_steps=20, warmup_steps=2)
    engine = open_engine(line, [{"name": "line", "params": line.parameters(), "lr": 0.2}])
    signals = SimpleNamespace(read=lambda step: (False, step == stop_after))
    assert train_stage(engine, batches_from, run, signals) == (not stop_after)
    return [{k: v for k, v in step.items() if k not in SPEEDS} for step in read_steps(work)]


def test_an_objective_of_any_kind_trains_and_goes_on_from_its_state(tmp_path):
    whole = train(tmp_path / "whole")
    assert {"loss", "loss_error", "loss_size", "lr_line", "epoch"} < set(whole[0])
    assert whole[-1]["loss"] < whole[0]["loss"] / 3
    assert train(tmp_path / "stopped", stop_after=7) == whole[:7]
    assert train(tmp_path / "stopped") == whole
