"""tools/benchmarks/clip.py runs, and its shares add up."""

import argparse

import pytest

from tests.helpers.clip_files import write_small_clip
from tests.helpers.load_tool import load_tool

benchmark = load_tool('benchmarks/clip')


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(words)


def test_all_images_are_measured(tmp_path, capsys):
    weights = str(write_small_clip(tmp_path / 'clip.pth'))
    words = ['--num-images', '6', '--batch-size', '3', '--turns', '1', '--weights', weights]
    words += ['--num-points', '500', '--image-size', '64', '96', '--peak-tflops', '1']
    result = benchmark.run(arguments(*words))
    shares = [value for name, value in result.items() if name.endswith('_share')]
    assert len(shares) == 3
    assert 0.5 < sum(shares) <= 1.001
    assert result['store_bytes_per_image'] > 32 * 8 * 8 * 2
    assert result['ratio'] == pytest.approx(
        result['extraction_images_per_second'] / result['bare_images_per_second']
    )
    assert 'share_of_ceiling' in capsys.readouterr().out


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match='at least one batch'):
        benchmark.run(arguments('--num-images', '3', '--batch-size', '4'))
