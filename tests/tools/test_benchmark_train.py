"""The training benchmark on a small room."""

import argparse

import pytest
import torch

from tests.helpers.load_tool import load_tool


@pytest.fixture(scope='module')
def benchmark():
    return load_tool('benchmarks/train')


def parse(benchmark, *words):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(words)


def test_measures_every_stage(benchmark, capsys):
    words = '--points', '2000', '--steps', '1', '--voxel-size', '0.2'
    result = benchmark.run(parse(benchmark, *words))
    assert tuple(result['seconds']) == benchmark.STAGES
    assert all(t > 0 for ways in result['seconds'].values() for t in ways.values())
    assert result['dominates'] in benchmark.STAGES
    assert result['num_points'] == 2000
    assert result['dominates'] in capsys.readouterr().out


def test_gradients_of_the_stages_are_those_of_one_backward_pass(benchmark):
    torch.manual_seed(0)
    model = benchmark._build_model(None, 0.2)
    model.query_thr = 1.0
    points, sample = benchmark.make_room(2000, 20, 2)
    benchmark.measure_step(model, {'points': [points]}, [sample])
    by_stage = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    sum(model.loss({'points': [points]}, [sample]).values()).backward()
    for got, parameter in zip(by_stage, model.parameters()):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-2, atol=1e-4)


def test_bad_arguments_are_refused(benchmark, tmp_path):
    with pytest.raises(ValueError, match='--points'):
        benchmark.run(parse(benchmark, '--points', '0'))
    with pytest.raises(FileNotFoundError, match=r'no\.py'):
        benchmark.run(parse(benchmark, '--config', str(tmp_path / 'no.py')))
