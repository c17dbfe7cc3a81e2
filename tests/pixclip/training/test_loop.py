"""The loop with an engine that only takes notes."""

from itertools import count

import pytest
import torch

from pixclip.training.loop import Plan, fit
from tests.pixclip.training.small import random_batch


class NotingEngine:
    """Gives the losses it is told to give and notes what is asked of it."""

    device = torch.device("cpu")

    def __init__(self, *losses: float) -> None:
        self.losses, self.multipliers, self.num_updates = list(losses), [], 0

    def __call__(self, batch) -> dict[str, torch.Tensor]:
        total = torch.tensor(self.losses.pop(0))
        return {"total": total, "cl": total / 2, "fc": total / 4, "lg": total / 4}

    def set_rates(self, multiplier: float) -> None:
        self.multipliers.append(multiplier)

    def rates(self) -> dict[str, float]:
        return {"rest": self.multipliers[-1]}

    def backward(self, loss) -> None:
        pass

    def step(self) -> float:
        self.num_updates += 1
        return 1.5


def run(engine, plan, signals=None):
    reports, saved = [], []
    wishes = iter(signals or [])
    end = fit(
        engine,
        ((7, random_batch(step)) for step in count()),
        plan,
        read_signals=lambda step: next(wishes, (False, False)),
        on_step=reports.append,
        save=saved.append,
    )
    return end, reports, saved


def test_every_step_is_reported_with_its_losses_and_rates():
    end, reports, saved = run(NotingEngine(4.0, 3.0), Plan(0, 2, 1))
    assert end == 2
    assert saved == [2]  # what comes after the last step may fail
    assert [report.step for report in reports] == [1, 2]
    first = reports[0]
    assert first.losses == {"total": 4.0, "cl": 2.0, "fc": 1.0, "lg": 1.0}
    assert (first.epoch, first.rates, first.grad_norm, first.num_samples) == (
        7,
        {"rest": 1},
        1.5,
        8,
    )
    assert 0 <= first.wait_seconds <= first.seconds


def test_a_resumed_run_has_the_rates_of_the_one_that_was_not_stopped():
    whole, rest = NotingEngine(*[1.0] * 10), NotingEngine(*[1.0] * 6)
    run(whole, Plan(0, 10, 3))
    run(rest, Plan(4, 10, 3))
    assert rest.multipliers == whole.multipliers[4:]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change(loss):
    engine = NotingEngine(1.0, loss)
    with pytest.raises(FloatingPointError, match="loss of step 2 is not finite"):
        run(engine, Plan(0, 5, 1))
    assert engine.num_updates == 1


def test_a_run_that_is_asked_to_stop_finishes_its_step_saves_and_leaves():
    engine = NotingEngine(*[1.0] * 5)
    end, reports, saved = run(engine, Plan(0, 5, 1), [(True, False), (False, False), (False, True)])
    assert (end, len(reports), saved) == (3, 3, [1, 3])
