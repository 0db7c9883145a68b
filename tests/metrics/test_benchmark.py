"""The measured sides of ``tools/benchmark.py metrics`` evaluate the same scenes alike."""

import argparse
import warnings

import numpy as np
import pytest

from tests.helpers.load_tool import load_tool

benchmark = load_tool('benchmarks/metrics')

SIZES = {'points': 5000, 'instances': 12, 'scenes': 3, 'seed': 1}


def test_both_sides_agree() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        _, expected = benchmark.evaluate_mmdet3d(SIZES)
    for tasks in (('instance',), ('semantic', 'instance', 'panoptic')):
        np.testing.assert_allclose(benchmark.evaluate_ours(SIZES, tasks)[1], expected)
    assert 0 < expected[0] < 1


def test_sizes_below_one_are_refused() -> None:
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    with pytest.raises(ValueError, match='--scenes must be at least 1, got 0'):
        benchmark.run(parser.parse_args(['--scenes', '0']))


@pytest.mark.slow
def test_run_measures_in_processes_of_their_own(capsys: pytest.CaptureFixture) -> None:
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    result = benchmark.run(parser.parse_args(['--scenes', '8', '--points', '50000']))
    assert result['speedup'] > 3
    assert 'times as long' in capsys.readouterr().out
