"""Fusing: spacing, labels and positions."""

from dataclasses import replace

import numpy as np
from scipy.spatial.distance import cdist

from oneformer3d.data.synthetic import tiny_settings
from oneformer3d.data.synthetic.fuse import fuse_frames, one_per_cell, thin


def test_thin_equals_greedy_choice_one_by_one():
    xyz = np.random.default_rng(0).uniform(0, 1, (800, 3))
    kept = []
    for i, point in enumerate(xyz):
        if all(np.linalg.norm(point - xyz[k]) > 0.15 for k in kept):
            kept.append(i)
    np.testing.assert_array_equal(thin(xyz, 0.15), kept)
    assert (cdist(xyz, xyz[kept]).min(axis=1) <= 0.15).all()  # no further point would fit


def test_thin_of_one_point_and_of_far_points():
    np.testing.assert_array_equal(thin(np.zeros((1, 3)), 0.1), [0])
    np.testing.assert_array_equal(thin(np.eye(3), 0.1), [0, 1, 2])


def test_one_per_cell_takes_one_point_of_each_occupied_cell():
    xyz = np.random.default_rng(1).uniform(-1, 1, (3000, 3))
    chosen = one_per_cell(np.random.default_rng(2), xyz, 0.25)
    cells = np.floor((xyz - xyz.min(axis=0)) / 0.25).astype(int)
    expected = {tuple(cell) for cell in cells.tolist()}
    got = [tuple(cell) for cell in cells[chosen].tolist()]
    assert len(got) == len(set(got))
    assert set(got) == expected


def test_points_keep_their_distance(tiny_scan):
    xyz = tiny_scan.points[:, :3].astype(float)
    distance = cdist(xyz, xyz) + np.eye(len(xyz))
    assert distance.min() > tiny_settings().point_spacing - 1e-5


def test_small_instances_become_unlabeled(tiny_scan):
    settings = replace(tiny_settings(), min_instance_points=60)
    cloud = fuse_frames(np.random.default_rng(0), tiny_scan.frames, tiny_scan.intrinsics, settings)
    counts = np.bincount(cloud.instance)[1:]
    assert counts[counts > 0].min() >= 60
    labelled = tiny_scan.instance > 0
    seen = set(np.unique(cloud.instance))
    assert seen < set(np.unique(tiny_scan.instance[labelled])) | {0}


def test_without_misalignment_colours_are_those_of_the_pixel(tiny_scan):
    settings = replace(tiny_settings(), color_misalignment=0.0)
    frame = tiny_scan.frames[0]
    cloud = fuse_frames(np.random.default_rng(0), [frame], tiny_scan.intrinsics, settings)
    cam_from_world = np.linalg.inv(frame.world_from_cam)
    cam = cloud.points[:, :3] @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    u, v = np.round((cam @ tiny_scan.intrinsics.T)[:, :2] / cam[:, 2:]).astype(int).T
    np.testing.assert_array_equal(cloud.points[:, 3:], frame.point_color[v, u])
    np.testing.assert_allclose(cam[:, 2], frame.depth[v, u] / 1000.0, atol=1e-4)
