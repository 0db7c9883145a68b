import os
import signal
import threading

import pytest

from oneformer3d.files.signals import held_signals


def test_a_signal_waits_until_the_work_is_done():
    done = []

    @held_signals()
    def work():
        os.kill(os.getpid(), signal.SIGINT)
        done.append('work')

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ['work']


def test_handlers_are_given_back_and_get_the_first_signal():
    received = []
    own = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        handler = signal.getsignal(signal.SIGTERM)
        with held_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert received == []
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, own)


def test_an_error_of_the_work_is_not_lost():
    with pytest.raises(ValueError, match='broken'), held_signals():
        raise ValueError('broken')


def test_other_threads_hold_nothing():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with held_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
