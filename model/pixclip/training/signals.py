"""When a run saves its state: after so many steps or seconds, and when it is asked to stop."""

import signal
import time
from types import FrameType

from pixclip.distributed import rank
from pixclip.training.loop import Signals

STOPPED = 128 + signal.SIGTERM  # exit code of a run that saved its state and stopped


class SaveSignals:
    """Reads the clock and SIGTERM; use it as a context manager."""

    def __init__(self, every_steps: int, every_s: float, step: int) -> None:
        self._every_steps, self._every_s, self._step = every_steps, every_s, step
        self._saved_at = time.monotonic()
        self._is_stopped = False

    def __enter__(self) -> "SaveSignals":
        self._before = signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def read(self) -> Signals:
        """Save, and stop, after the step that runs now; only rank 0 looks at the clock."""
        self._step += 1
        is_due = time.monotonic() - self._saved_at >= self._every_s
        save = rank() == 0 and (is_due or self._step % self._every_steps == 0)
        if save:
            self._saved_at = time.monotonic()
        return save, self._is_stopped

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._is_stopped = True
