"""Intrinsics, rays and the walk."""

import numpy as np
import pytest
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from oneformer3d.data.synthetic.cameras import (
    MIN_CLEARANCE,
    clearance,
    look,
    make_intrinsics,
    pixel_rays,
    walk,
)
from oneformer3d.data.synthetic.layout import make_room
from oneformer3d.data.synthetic.mesh import box, join_objects
from oneformer3d.data.synthetic.settings import RoomSettings
from oneformer3d.lifting.camera import is_valid_pose


def embree_scene(vertices, faces):
    scene = EmbreeScene()
    TriangleMesh(scene, np.asarray(vertices, np.float32), np.asarray(faces, np.int32))
    return scene


def test_the_walk_is_rigid_inside_the_room_and_clear_of_objects():
    rng = np.random.default_rng(0)
    room = make_room(rng, RoomSettings())
    mesh = join_objects(room.objects)
    scene = embree_scene(mesh.vertices, mesh.faces)
    poses = walk(rng, scene, room, num_views=18)
    assert len(poses) == 18
    for world_from_cam in poses:
        assert is_valid_pose(torch.from_numpy(world_from_cam))
        position = world_from_cam[:3, 3]
        assert (position > room.low + 0.1).all()
        assert (position < room.high - 0.1).all()
        assert clearance(scene, position) > MIN_CLEARANCE


def test_the_walk_looks_all_around():
    rng = np.random.default_rng(1)
    room = make_room(rng, RoomSettings())
    mesh = join_objects(room.objects)
    poses = walk(rng, embree_scene(mesh.vertices, mesh.faces), room, num_views=18)
    heading = np.sort([np.arctan2(pose[1, 2], pose[0, 2]) for pose in poses])
    gaps = np.diff([*heading, heading[0] + 2 * np.pi])
    assert gaps.max() < np.pi / 2


def test_clearance_is_the_distance_to_the_nearest_wall():
    cube = box((-1, -1, -1), (1, 1, 1))
    scene = embree_scene(cube.vertices, cube.faces)
    assert clearance(scene, np.array([0.0, 0.0, 0.0])) == pytest.approx(1.0, abs=0.08)
    assert clearance(scene, np.array([0.7, 0.0, 0.0])) == pytest.approx(0.3, abs=1e-5)


def test_intrinsics_have_the_field_of_view():
    settings = RoomSettings(field_of_view=(60.0, 60.0), image_size=(48, 64))
    intrinsics = make_intrinsics(np.random.default_rng(0), settings)
    edges = pixel_rays(intrinsics, (48, 64), offset=(-0.5, 0.0))[0, 0]
    assert np.degrees(np.arctan(-edges)) == pytest.approx(30.0)
    assert intrinsics[0, 0] == intrinsics[1, 1]


def test_look_is_right_handed_with_the_horizon_level():
    world_from_cam = look(np.array([1.0, 2.0, 1.5]), heading=0.0, pitch=0.0, roll=0.0)
    expected = np.array([(0, 0, 1, 1.0), (-1, 0, 0, 2.0), (0, -1, 0, 1.5), (0, 0, 0, 1)])
    np.testing.assert_allclose(world_from_cam, expected, atol=1e-12)
    up = look(np.zeros(3), heading=1.0, pitch=0.4, roll=0.2)
    assert up[2, 2] == pytest.approx(np.sin(0.4))


def test_pixel_rays_invert_the_projection():
    intrinsics = np.array([(70.0, 0, 31.5), (0, 65.0, 23.5), (0, 0, 1)])
    uv = pixel_rays(intrinsics, (48, 64)) @ intrinsics.T
    v, u = np.mgrid[0:48, 0:64].reshape(2, -1)
    np.testing.assert_allclose(uv, np.stack([u, v, np.ones_like(u)], axis=1), atol=1e-9)
