"""The measured sides of ``tools/benchmark.py lifting`` lift the same features."""

import argparse
import importlib.util
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks' / 'lifting.py'
SPEC = importlib.util.spec_from_file_location('lifting_benchmark', FILE)
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)

SIZES = dict(views=6, points=3000, channels=5, grid=7, budget_mb=8, threads=1, seed=0, repeats=1)


@pytest.mark.parametrize(('name', 'least', 'most'), [('room', 0.1, 0.25), ('all_visible', 1, 1)])
def test_all_sides_agree(name, least, most):
    scene = benchmark.make_scene(name, SIZES)
    numbers = benchmark._time(scene, SIZES)  # raises when they do not
    assert least <= numbers['visible'] <= most


def test_disagreement_is_an_error(monkeypatch):
    scene = benchmark.make_scene('room', SIZES)
    wrong = {**benchmark.FUNCTIONS, 'loop': lambda *x: (torch.ones(3000, 5), torch.ones(3000))}
    monkeypatch.setattr(benchmark, 'FUNCTIONS', wrong)
    with pytest.raises(ValueError, match='disagree'):
        benchmark._time(scene, SIZES)


def test_sizes_below_one_are_refused():
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    with pytest.raises(ValueError, match='--views must be at least 1'):
        benchmark.run(parser.parse_args(['--views', '0']))
