"""bfloat16 is used, unasked, only where it pays; asked for elsewhere it comes with a warning."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger

from oneformer3d import precision
from oneformer3d.precision import multiplies_bfloat16, warn_of_emulated_bfloat16


def test_answers_for_the_processor_at_hand():
    """Fewer than AVX-512's instructions never multiply bfloat16; a meta device computes nothing."""
    if torch.backends.cpu.get_cpu_capability() in ('DEFAULT', 'AVX2'):
        assert not multiplies_bfloat16('cpu')
    assert not multiplies_bfloat16('meta')


@pytest.mark.parametrize('supported', [True, False])
def test_warns_only_where_it_is_emulated(monkeypatch, supported):
    monkeypatch.setattr(precision, 'multiplies_bfloat16', lambda device: supported)
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        warn_of_emulated_bfloat16('cpu', '--amp')
    finally:
        logger.removeHandler(handler)
    assert len(seen) == (not supported)
    assert all(text.startswith('--amp: this cpu') for text in seen)
