"""Seconds of each step of a scan, and who shows the progress.

Enters: names of steps as they begin. Leaves: a dictionary of seconds.
"""

import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # name of a step, how much is done, of how much


class Clock:
    """Seconds of each step; calls whoever shows the progress."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._step: str | None = None
        self._total = 1
        self._began = 0.0

    def start(self, step: str, total: int = 1) -> None:
        """End the step before and begin one of ``total`` parts."""
        self.stop()
        self._step, self._total, self._began = step, total, time.perf_counter()
        self.report(0)

    def report(self, done: int) -> None:
        """Report that so many parts are done."""
        if self._progress is not None and self._step is not None:
            self._progress(self._step, done, self._total)

    def stop(self) -> None:
        """End the step."""
        if self._step is not None:
            self.report(self._total)
            self.seconds[self._step] = round(time.perf_counter() - self._began, 3)
            self._step = None
