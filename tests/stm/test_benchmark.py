"""The measured sides of ``tools/benchmark.py stm`` sample the same features."""

import argparse

import pytest
import torch

from tests.helpers.described_stm import benchmark

SIZES = {
    'batch_size': 2,
    'queries': 4,
    'groups': 2,
    'points': 3,
    'channels': 8,
    'frames': 2,
    'height': 64,
    'width': 96,
    'stages': 2,
    'threads': 1,
    'seed': 0,
    'repeats': 1,
}


@pytest.mark.parametrize('pyramid', benchmark.PYRAMIDS)
def test_all_sides_agree(pyramid):
    numbers = benchmark.time_sides(pyramid, SIZES)  # raises when they do not
    assert set(numbers) == {'ours', 'described'}


def test_disagreement_is_an_error(monkeypatch):
    monkeypatch.setattr(
        benchmark, 'described_sample4d', lambda points, *_: points.sum() * torch.ones(2)
    )
    with pytest.raises(ValueError, match='disagree'):
        benchmark.check(SIZES, trained=False)


def test_sizes_are_refused():
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    with pytest.raises(ValueError, match='--frames must be at least 1'):
        benchmark.run(parser.parse_args(['--frames', '0']))
    with pytest.raises(ValueError, match='--height and --width'):
        benchmark.run(parser.parse_args(['--height', '16']))
