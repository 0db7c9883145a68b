"""Superpoints of a depth image whose surfaces are known."""

import numpy as np
import torch

from oneformer3d.lifting.camera import unproject
from oneformer3d.streaming.depth_superpoints import depth_superpoints
from tests.helpers.rgbd_scenes import K, render_views


def room(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surface in the camera, depth and wall (h, w) of a view of a box-shaped room."""
    view = render_views(6)[index]
    depth = view.depth.astype(np.float32) / 1000
    surface = unproject(torch.from_numpy(depth), torch.from_numpy(K).float(), torch.eye(4)).numpy()
    return surface, depth, view.color.argmax(axis=2)


def test_no_superpoint_goes_round_a_corner():
    for index in range(3):
        surface, depth, wall = room(index)
        ids = depth_superpoints(surface, depth > 0)
        assert ids.min() == 0
        assert len(np.unique(ids)) == ids.max() + 1
        pure = sum(np.bincount(wall[ids == k]).max() for k in range(ids.max() + 1))
        assert pure / ids.size > 0.93  # normals of pixels at a corner belong to neither wall
        assert ids.max() + 1 <= 25


def test_colour_alone_parts_a_plane():
    depth = np.full((40, 60), 2.0, np.float32)
    surface = unproject(torch.from_numpy(depth), torch.from_numpy(K).float(), torch.eye(4)).numpy()
    colors = np.zeros((40, 60, 3))
    colors[:, 30:] = (255, 0, 0)
    assert depth_superpoints(surface, depth > 0).max() == 0
    ids = depth_superpoints(surface, depth > 0, colors, color_weight=3.0)
    assert ids[20, 5] != ids[20, 55]


def test_missing_depth_has_no_superpoint():
    surface, depth, _ = room(0)
    valid = np.random.default_rng(0).random(depth.shape) > 0.3
    ids = depth_superpoints(surface, valid)
    np.testing.assert_array_equal(ids >= 0, valid)
    assert (depth_superpoints(surface, np.zeros_like(valid)) == -1).all()
