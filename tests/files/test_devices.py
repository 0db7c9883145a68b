"""bfloat16 is used, unasked, only where it pays; asked for elsewhere it comes with a warning."""

import logging
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

from oneformer3d.files import devices as precision
from oneformer3d.files.devices import multiplies_bfloat16, warn_of_emulated_bfloat16


def test_answers_for_the_processor_at_hand():
    """An x86 without AVX-512 (or its AVX2 kin) has no bfloat16; a meta device computes nothing."""
    cpu = Path('/proc/cpuinfo')
    flags = set(cpu.read_text().split()) if cpu.is_file() else set()
    if 'avx2' in flags and not flags & {'avx512bw', 'avx_ne_convert'}:
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
