"""bfloat16 is used, unasked, only where it pays; asked for elsewhere it comes with a warning."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger

from oneformer3d import precision
from oneformer3d.backbones import fpn
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


@pytest.mark.parametrize('supported', [True, False])
def test_image_network_computes_in_what_the_device_multiplies(monkeypatch, supported):
    monkeypatch.setattr(fpn, 'multiplies_bfloat16', lambda device: supported)
    network = fpn.FeaturePyramid('resnet18', channels=8, use_amp=True).eval()
    dtypes = []
    network.projectors[0].register_forward_hook(lambda *args: dtypes.append(args[-1].dtype))
    with torch.no_grad():
        maps = network(torch.rand(1, 3, 32, 32)).maps
    assert dtypes == [torch.bfloat16 if supported else torch.float32]
    assert maps[0].dtype == torch.float32
