"""tools/benchmarks/fields.py runs on a room that is there, and its numbers fit together."""

import argparse
import sys

import pytest
import torch

from tests.helpers.load_tool import load_tool

benchmark = load_tool('benchmarks/fields')


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(words)


def test_both_fields_are_fitted_and_compared(tiny_rooms, monkeypatch, capsys):
    assert (tiny_rooms / 'posed_images' / 'room0000_00').is_dir()
    settings = benchmark.side_settings

    def quick(changes, steps, args, device):
        return benchmark.replace(
            settings(changes, steps, args, device),
            batch_rays=64,
            surface_pixels=64,
            measure_rays=64,
        )

    monkeypatch.setattr(benchmark, 'side_settings', quick)
    words = ['--steps', '4', '--mlp_steps', '2', '--measure_every', '2', '--device', 'cpu']
    result = benchmark.run(arguments(*words, '--room', str(tiny_rooms)))
    for side, steps in (('hash', [2, 4]), ('mlp', [2])):
        row = result[side]
        assert [entry['step'] for entry in row['history']] == steps
        assert row['pixels_per_second'] == pytest.approx(
            steps[-1] * 128 / row['cpu_seconds'], rel=1e-6
        )
    assert {'psnr', 'psnr_aligned', 'miou'} <= set(result['hash']['held_out'])
    assert result['psnr_both'] == result['mlp']['history'][-1]['held_out_psnr_aligned']
    assert 'rays/s' in capsys.readouterr().out


def test_samplers_are_compared_without_depth(tiny_rooms, monkeypatch, capsys):
    samplers = sys.modules['tools.benchmarks._field_samplers']
    monkeypatch.setitem(samplers.COMMON, 'batch_rays', 32)
    words = ['--part', 'samplers', '--steps', '4', '--measure_every', '2', '--device', 'cpu']
    result = benchmark.run(arguments(*words, '--room', str(tiny_rooms)))
    for side in ('proposals', 'two rounds'):
        assert [row['step'] for row in result[side]['history']] == [2, 4]
        assert result[side]['held_out']['depth_error'] > 0  # against the depth that was kept away
    assert result['speedup'] > 0
    assert 'two rounds' in capsys.readouterr().out

    scene = samplers.without_depth(benchmark.make_room(tiny_rooms, 0))
    assert not scene.has_depth
    assert scene.read(0).depth is None


def test_the_door_room_shows_two_walls_and_is_measured(capsys):
    scene = benchmark.measure_door.__globals__['door_scene']()
    depth = torch.stack([scene.read(view).depth for view in range(len(scene))])
    assert sorted(depth.unique().tolist()) == [2.0, 24.0]
    result = benchmark.run(arguments('--part', 'door', '--steps', '2', '--device', 'cpu'))
    assert set(result) == {'box', 'contracted'}
    assert result['box']['far_median'] > 0
    assert 'door colours' in capsys.readouterr().out


def test_options_are_read_with_underscores_and_dashes(capsys):
    """As ``tools/benchmark.py`` reads them; no steps end it before anything is fitted."""
    main = load_tool('benchmark').main
    for words in (['--mlp_steps', '-1'], ['--mlp-steps', '-1']):
        assert main(['fields', *words]) == 1
        assert 'must be at least 1' in capsys.readouterr().err


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match='at least 1'):
        benchmark.run(arguments('--steps', '0'))


def test_time_to_a_quality_is_that_of_the_first_measurement_above():
    history = [
        {'held_out_psnr_aligned': psnr, 'seconds': second}
        for psnr, second in ((10.0, 1.0), (20.0, 2.0), (19.0, 3.0), (25.0, 4.0))
    ]
    assert benchmark.time_to(history, 15.0, 'seconds') == 2.0
    assert benchmark.time_to(history, 20.5, 'seconds') == 4.0
    assert benchmark.time_to(history, 30.0, 'seconds') is None
