"""The measured sides of ``tools/benchmark.py lifting`` lift the same features."""

import argparse

import pytest
import torch

from tests.helpers.load_tool import load_tool

benchmark = load_tool('benchmarks/lifting')

SIZES = dict(views=6, points=3000, channels=5, grid=7, budget_mb=8, threads=1, seed=0, repeats=1)


@pytest.mark.parametrize(('name', 'least', 'most'), [('room', 0.1, 0.25), ('all_visible', 1, 1)])
def test_all_sides_agree(name, least, most):
    numbers = benchmark.time_scene(name, SIZES)  # raises when they do not
    assert least <= numbers['visible'] <= most
    assert set(numbers['loop']) == {'seconds', 'cpu_seconds', 'spread'}


def test_disagreement_is_an_error(monkeypatch):
    monkeypatch.setitem(
        benchmark.FUNCTIONS, 'loop', lambda *x: (torch.ones(3000, 5), torch.ones(3000))
    )
    with pytest.raises(ValueError, match='loop and ours disagree'):
        benchmark.time_scene('room', SIZES)


def test_sizes_below_one_are_refused():
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    with pytest.raises(ValueError, match='--views must be at least 1'):
        benchmark.run(parser.parse_args(['--views', '0']))


PYRAMIDS = benchmark._pyramids
PYRAMID_SIZES = dict(views=3, points=500, channels=4, budget_mb=8, threads=1, seed=0, repeats=1)


def test_all_sides_lift_the_same_pyramids():
    numbers = PYRAMIDS.time_pyramids(PYRAMID_SIZES)
    assert set(PYRAMIDS.SIDES) <= set(numbers)
    assert 0.1 <= numbers['visible'] <= 0.3


def test_pyramids_that_disagree_are_an_error(monkeypatch):
    monkeypatch.setitem(
        PYRAMIDS.FUNCTIONS, 'loop', lambda *x: (torch.ones(500, 16), torch.ones(500))
    )
    with pytest.raises(ValueError, match='loop and ours disagree'):
        PYRAMIDS.time_pyramids(PYRAMID_SIZES)


def test_the_curve_is_drawn_over_both(tmp_path):
    rows = [
        {**size, **{side: {'cpu_seconds': 0.1 * size['views']} for side in PYRAMIDS.SIDES}}
        for size in PYRAMIDS.curve_sizes(8, 1000)
    ]
    assert [(r['views'], r['points']) for r in rows] == [
        (8, 250), (8, 500), (8, 1000), (8, 2000), (2, 1000), (4, 1000), (16, 1000),
    ]  # fmt: skip
    PYRAMIDS.draw_curve(rows, {**PYRAMID_SIZES, 'views': 8, 'points': 1000}, tmp_path / 'c.png')
    assert (tmp_path / 'c.png').stat().st_size > 5000


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (['--pyramid_views', '0'], '--pyramid_views must be at least 1'),
        (['--curve', 'curve.pdf'], 'must be a .png'),
        (['--curve', 'nowhere/at/all/curve.png'], 'no folder'),
    ],
)
def test_bad_pyramid_options_are_refused(option, message):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    with pytest.raises(ValueError, match=message):
        benchmark.run(parser.parse_args(option))
