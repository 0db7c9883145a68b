"""Shapes, poses and surface coordinates."""

import numpy as np
import pytest

from oneformer3d.data.synthetic.mesh import Part, SceneObject, box, frustum, join_objects, pose
from oneformer3d.data.synthetic.textures import Material, Pattern

PLAIN = Material(Pattern.SOLID, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def placed(mesh, world_from_object=None, raw_id=4, instance_id=1):
    world_from_object = np.eye(4) if world_from_object is None else world_from_object
    return SceneObject(raw_id, instance_id, (Part(mesh, PLAIN),), world_from_object)


def test_pose_turns_about_the_vertical_and_moves():
    world_from_object = pose(np.pi / 2, (1.0, 2.0, 3.0))
    np.testing.assert_allclose(
        world_from_object @ [1.0, 0.0, 0.5, 1.0], [1.0, 3.0, 3.5, 1.0], atol=1e-12
    )


def test_box_and_frustum_have_the_volumes_of_the_formulas():
    assert box((0, 0, 0), (1, 2, 3)).volume == pytest.approx(6.0)
    cone = frustum(0.3, 0.1, (1.0, 2.0), (5.0, 5.0), num_sides=400)
    assert cone.volume == pytest.approx(np.pi / 3 * (0.09 + 0.03 + 0.01), rel=1e-3)
    np.testing.assert_allclose(cone.bounds, [(4.7, 4.7, 1.0), (5.3, 5.3, 2.0)], atol=1e-3)


def test_surface_coordinates_keep_lengths_on_boxes():
    mesh = join_objects([placed(box((0, 0, 0), (1, 2, 3)), pose(0.7, (3.0, -1.0, 0.2)))])
    corners = mesh.vertices[mesh.faces]
    uv = np.einsum('fij,fkj->fki', mesh.uv_from_world[:, :, :3], corners)
    uv += mesh.uv_from_world[:, None, :, 3]
    for a, b in ((0, 1), (1, 2), (2, 0)):
        np.testing.assert_allclose(
            np.linalg.norm(uv[:, a] - uv[:, b], axis=1),
            np.linalg.norm(corners[:, a] - corners[:, b], axis=1),
            atol=1e-9,
        )


def test_surface_coordinates_move_with_the_object():
    shape = box((0, 0, 0), (1, 2, 3))
    at_home = join_objects([placed(shape)])
    moved = join_objects([placed(shape, pose(1.1, (3.0, -1.0, 0.2)))])

    def uv_of_corners(mesh):
        corners = np.concatenate([mesh.vertices[mesh.faces], np.ones((12, 3, 1))], axis=2)
        return np.einsum('fij,fkj->fki', mesh.uv_from_world, corners)

    np.testing.assert_allclose(uv_of_corners(moved), uv_of_corners(at_home), atol=1e-9)


def test_joined_normals_are_those_of_the_placed_triangles():
    mesh = join_objects(
        [
            placed(box((0, 0, 0), (1, 2, 3)), pose(0.3, (1.0, 1.0, 0.0))),
            placed(frustum(0.2, 0.2, (0.0, 1.0)), raw_id=7, instance_id=2),
        ]
    )
    a, b, c = np.swapaxes(mesh.vertices[mesh.faces], 0, 1)
    expected = np.cross(b - a, c - a)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(mesh.normals, expected, atol=1e-9)
    np.testing.assert_array_equal(mesh.raw_ids, [4, 7])
    np.testing.assert_array_equal(mesh.instance_ids, [1, 2])
    np.testing.assert_array_equal(np.bincount(mesh.part), [12, len(mesh.faces) - 12])
