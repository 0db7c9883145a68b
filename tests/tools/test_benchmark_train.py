"""The training benchmark on a small room."""

import argparse

import pytest
import torch

from tests.helpers.load_tool import load_tool
from tests.tools.conftest import REPOSITORY


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
    model, _ = benchmark.build_model(None, 0.2)
    model.query_thr = 1.0
    points, sample = benchmark.make_room(2000, 20, (0, 1))
    benchmark.measure_step(model, {'points': [points]}, [sample])
    by_stage = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    sum(model.loss({'points': [points]}, [sample]).values()).backward()
    for got, parameter in zip(by_stage, model.parameters()):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-2, atol=1e-4)


def test_any_model_of_points_and_images_is_measured(benchmark):
    """A fused model of other classes; its stages are those of one backward pass, too."""
    torch.manual_seed(0)
    config = REPOSITORY / 'configs' / 'bifusion_synthetic.py'
    model, map_channels = benchmark.build_model(config, 0.2)
    model.query_thr = 1.0
    model.encoder.points_3d.random_grid_start = False  # both passes see one grid
    model.decoder.token_dropout = 0.0  # and the same objects
    points, sample = benchmark.make_room(1500, model.num_semantic_classes, model.stuff_classes)
    views = benchmark.make_views(points, 3, map_channels)
    assert 0.1 < len(views.pairs) / (3 * len(points)) < 0.5

    inputs, samples = {'points': [points], 'views': [views]}, [sample]
    seconds = benchmark.measure_step(model, inputs, samples)
    assert ('voxelise', 'forward') not in seconds
    parameters = [p for p in model.parameters() if p.requires_grad]
    by_stage = [None if p.grad is None else p.grad.clone() for p in parameters]
    model.zero_grad()
    sum(model.loss(inputs, samples).values()).backward()
    for got, parameter in zip(by_stage, parameters):
        assert (got is None) == (parameter.grad is None)
        if got is not None:
            # Queries come in another order each time, which moves sums of half-precision products.
            error = (got - parameter.grad).norm()
            assert error <= 0.03 * parameter.grad.norm() + 1e-4
    assert sum(got is not None for got in by_stage) > 0.8 * len(by_stage)


def test_bad_arguments_are_refused(benchmark, tmp_path):
    with pytest.raises(ValueError, match='--points'):
        benchmark.run(parse(benchmark, '--points', '0'))
    with pytest.raises(FileNotFoundError, match=r'no\.py'):
        benchmark.run(parse(benchmark, '--config', str(tmp_path / 'no.py')))
