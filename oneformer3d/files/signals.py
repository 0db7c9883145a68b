"""Signals that wait until a piece of work that must not be left midway is done.

Enters: SIGTERM or SIGINT while the work runs. Leaves: the same signal after it.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_signals() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back while the block runs; the first that came is raised after it.

    For code that an exception must not unwind, such as a compiler's. Python hands signals to the
    main thread alone: in others this does nothing.

    Example:
        >>> with held_signals():
        ...     pass  # SIGTERM and Ctrl-C wait here
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])
