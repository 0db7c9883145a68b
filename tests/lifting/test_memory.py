"""Temporary memory stays within the byte budget, by the allocator's own record."""

import gc
from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from oneformer3d.lifting import (
    PixelPairs,
    gather_pairs,
    project_pairs,
    project_visible,
    sample_map,
    zbuffer_views,
)
from tests.helpers.lifting_scenes import make_camera, room_points

NUM_VIEWS, NUM_POINTS, NUM_CHANNELS = 8, 20_000, 64
# Whole-cloud vectors of a few bytes per point or pair that are not cut.
SLACK = 16 * NUM_POINTS


def _temporary_bytes(function: Callable[[], object]) -> int:
    """Most bytes allocated at any time beyond those that the result holds."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        result = function()
    current = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == '[memory]':
            current += event.nbytes()
            peak = max(peak, current)
    assert result is not None
    return peak - current


@pytest.mark.parametrize('megabytes', [1, 4])
def test_within_the_budget(megabytes):
    camera = make_camera(NUM_VIEWS, torch.float32)
    points = room_points(NUM_POINTS, torch.float32)
    maps = torch.randn(NUM_VIEWS, NUM_CHANNELS, 14, 14)
    maps = maps.contiguous(memory_format=torch.channels_last)
    pairs = project_pairs(points, camera)
    pair_bytes = len(pairs) * 28
    budget = megabytes << 20
    peaks = {
        # The pieces of one column are joined at a time: the largest is 8 bytes per pair.
        'pairs': _temporary_bytes(lambda: project_pairs(points, camera, byte_budget=budget))
        - pair_bytes * 8 // 28,
        'gather': _temporary_bytes(
            lambda: gather_pairs(
                maps, pairs, camera.image_size, num_points=NUM_POINTS, byte_budget=budget
            )
        ),
        'zbuffer': _temporary_bytes(lambda: zbuffer_views(points, camera, byte_budget=budget)),
    }
    assert {name: peak for name, peak in peaks.items() if peak > budget + SLACK} == {}
    assert min(peaks.values()) > 0


def test_dense_calls_within_the_budget():
    camera = make_camera(NUM_VIEWS, torch.float32)
    points = room_points(NUM_POINTS, torch.float32)
    maps = torch.randn(NUM_VIEWS, 8, 14, 14)
    uv, _ = camera.project(points)
    budget = 2 << 20
    sampled = _temporary_bytes(lambda: sample_map(maps, uv, camera.image_size, byte_budget=budget))
    assert 0 < sampled <= budget
    # The pieces of one result are joined at a time; pixels are the largest.
    projected = _temporary_bytes(lambda: project_visible(points, camera, byte_budget=budget))
    assert 0 < projected <= budget + uv.numel() * 4


def test_a_whole_scene_without_a_budget_needs_more():
    """The measure sees what a budget saves."""
    maps = torch.randn(2, NUM_CHANNELS, 14, 14)
    point = torch.arange(NUM_POINTS).repeat_interleave(2)
    view = torch.arange(2).repeat(NUM_POINTS)
    pairs = PixelPairs(point, view, 40 * torch.rand(len(point), 2), torch.ones(len(point)))
    arguments = (maps, pairs, (48, 64), None, NUM_POINTS, 'sum')
    small, large = (
        _temporary_bytes(lambda budget=budget: gather_pairs(*arguments, budget))
        for budget in (1 << 20, 1 << 28)
    )
    assert small < 0.5 * large
