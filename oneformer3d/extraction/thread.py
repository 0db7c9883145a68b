"""A thread that works through what it is handed, in order, with a bounded queue before it.

Enters: a function and items. What the function raises is raised again in the caller's thread, at
the next ``put`` or at the end, and the items after it are dropped.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar('T')


@contextmanager
def work_thread(work: Callable[[T], None], max_waiting: int) -> Iterator['WorkThread[T]']:
    """A ``WorkThread`` that is done with everything at the end, or stopped after an error."""
    thread = WorkThread(work, max_waiting)
    try:
        yield thread
    except BaseException:
        thread.stop()
        raise
    thread.finish()


class WorkThread(Generic[T]):
    """Calls ``work`` with every item put, in a thread of its own.

    Args:
        work: called with one item at a time.
        max_waiting: items that may wait; ``put`` waits for room.

    Attributes:
        seconds: spent in ``work`` so far.
    """

    def __init__(self, work: Callable[[T], None], max_waiting: int) -> None:
        self.seconds = 0.0
        self._error: BaseException | None = None
        self._stopped = False
        self._work = work
        self._queue: queue.Queue[tuple[T] | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over an item; raises what working on an earlier one raised."""
        self._queue.put((item,))
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until everything is done; raises what working raised."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Wait for the item in work only; raises nothing."""
        self._stopped = True
        self._queue.put(None)
        self._thread.join()

    def _loop(self) -> None:
        # After an error the queue still moves, so that nobody waits for ever.
        while (item := self._queue.get()) is not None:
            if self._error is not None or self._stopped:
                continue
            start = time.perf_counter()
            try:
                self._work(*item)
            except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
                self._error = error
            self.seconds += time.perf_counter() - start
