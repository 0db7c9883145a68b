"""The points of fused recordings stay what they were, one by one: labels rest on them."""

import json
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.data.fuse_rgbd import fuse_folder
from oneformer3d.data.upright import refine_up, rotation_to_z_up, up_from_cameras

SHARED = Path(__file__).resolve().parents[2].parent / 'shared' / 'data'


def test_fused_points_of_real_frames_are_where_they_were(real_frames):
    """Every 500th point, its place in the order, and their number.

    Processors round the last bit of a product differently, so that a pixel at the border of a cube
    may fall to its neighbour: a row or two more or fewer.
    """
    points, poses = fuse_folder(real_frames, 0.02)
    expected = json.loads((Path(__file__).parent / 'fused_slambook2_ch5.json').read_text())
    assert abs(len(points) - expected['num_points']) <= 3
    assert len(poses) == 5

    unit = np.array([1000, 1000, 1000, 1, 1, 1])  # mm, and colour
    num_moved = 0
    for row, *values in expected['row_x_y_z_r_g_b']:
        near = points[row - 3 : row + 4].astype(np.float64) * unit  # (7, 6)
        num_moved += np.abs(near - values).max(axis=1).min() > 1.5
    assert num_moved <= 1


@pytest.mark.skipif(not (SHARED / 'kitchen_labelled').is_dir(), reason='no labelled kitchen here')
def test_labelled_kitchen_point_for_point():
    points, poses = fuse_folder(SHARED / '7scenes_kitchen', 0.02)
    labelled = np.load(SHARED / 'kitchen_labelled' / 'cloud.npz')
    assert len(points) == len(labelled['xyz'])
    rotation = rotation_to_z_up(refine_up(points[:, :3], up_from_cameras(poses)))
    upright = points[:, :3] @ rotation.T.astype(np.float32)
    assert np.abs(upright - labelled['xyz']).max() < 1e-4
    assert np.array_equal(np.clip(np.rint(points[:, 3:]), 0, 255), labelled['rgb'])
