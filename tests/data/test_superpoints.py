"""Over-segmentation of hand-made rooms whose surfaces are known."""

import numpy as np
import pytest
import trimesh

from oneformer3d.data.local_surfaces import mesh_vertex_normals, normals_of_neighbors
from oneformer3d.data.superpoints import superpoints_from_mesh, superpoints_from_points


def _patch(rng, origin, side_u, side_v, spacing, noise):
    """Points on a parallelogram, one per jittered cell of a grid."""
    origin, side_u, side_v = (np.array(x, dtype=float) for x in (origin, side_u, side_v))
    counts = [max(1, round(np.linalg.norm(side) / spacing)) for side in (side_u, side_v)]
    grid = np.stack(np.meshgrid(*map(np.arange, counts), indexing='ij'), -1).reshape(-1, 2)
    grid = (grid + 0.5 + rng.uniform(-0.3, 0.3, grid.shape)) / counts
    points = origin + grid[:, :1] * side_u + grid[:, 1:] * side_v
    return points + rng.normal(0, noise, points.shape)


def _room(spacing=0.05, noise=0.003, seed=0):
    """Floor, two walls, a panel 6 cm proud of one, a cupboard; points, colours, object ids."""
    rng = np.random.default_rng(seed)
    patches = [
        (0, (0, 0, 0), (4, 0, 0), (0, 3, 0)),
        (1, (0, 0, 0), (1, 0, 0), (0, 0, 2.5)),
        (1, (2, 0, 0), (2, 0, 0), (0, 0, 2.5)),
        (1, (1, 0, 0), (1, 0, 0), (0, 0, 1)),
        (1, (1, 0, 1.8), (1, 0, 0), (0, 0, 0.7)),
        (2, (0, 0, 0), (0, 3, 0), (0, 0, 2.5)),
        (3, (1, 0.06, 1), (1, 0, 0), (0, 0, 0.8)),
        (4, (3, 1, 0), (0.6, 0, 0), (0, 0, 0.8)),
        (4, (3, 1, 0.8), (0.6, 0, 0), (0, 1, 0)),
        (4, (3, 1, 0), (0, 1, 0), (0, 0, 0.8)),
    ]
    colors = rng.uniform(60, 200, (5, 3))
    parts = [_patch(rng, *sides, spacing, noise) for _, *sides in patches]
    labels = np.repeat([label for label, *_ in patches], [len(part) for part in parts])
    noisy = np.clip(colors[labels] + rng.normal(0, 8, (len(labels), 3)), 0, 255)
    order = rng.permutation(len(labels))
    return np.concatenate(parts)[order].astype(np.float32), noisy[order], labels[order]


def _purity(superpoints, labels):
    table = np.zeros((superpoints.max() + 1, labels.max() + 1), dtype=int)
    np.add.at(table, (superpoints, labels), 1)
    return table.max(1).sum() / len(labels)


def _same_partition(a, b):
    pairs = len(np.unique(np.stack((a, b), 1), axis=0))
    return pairs == len(np.unique(a)) == len(np.unique(b))


@pytest.mark.parametrize('spacing', [0.05, 0.02])
@pytest.mark.parametrize('with_color', [True, False])
def test_room_is_segmented_along_its_surfaces(spacing, with_color):
    points, colors, labels = _room(spacing)
    ids = superpoints_from_points(points, colors if with_color else None)
    assert ids.dtype == np.int64
    assert ids.shape == labels.shape
    assert np.array_equal(np.unique(ids), np.arange(ids.max() + 1))
    assert _purity(ids, labels) > 0.985
    assert 5 <= ids.max() + 1 < 250


def test_flat_panel_on_a_wall_is_not_swallowed():
    points, _, labels = _room()
    ids = superpoints_from_points(points)
    on_panel = np.unique(ids[labels == 3])
    own = [i for i in on_panel if (labels[ids == i] == 3).mean() > 0.9]
    assert np.isin(ids[labels == 3], own).mean() > 0.9


def test_color_alone_separates():
    rng = np.random.default_rng(1)
    points = _patch(rng, (0, 0, 0), (2, 0, 0), (0, 1, 0), 0.05, 0.001)
    right = points[:, 0] > 1
    colors = np.where(right[:, None], (220, 60, 60), (60, 60, 220)) + rng.normal(0, 5, (800, 3))
    assert superpoints_from_points(points).max() == 0
    assert _purity(superpoints_from_points(points, colors), right.astype(int)) > 0.99
    assert superpoints_from_points(points, colors, color_weight=0).max() == 0


def test_oriented_normals_keep_convex_edges_cheaper_than_concave():
    """The same bent sheet is cut where it is concave before it is cut where it is convex."""
    rng = np.random.default_rng(2)
    slope = np.array([0.0, np.cos(0.6), np.sin(0.6)])
    flat = _patch(rng, (0, -1, 0), (1, 0, 0), (0, 1, 0), 0.05, 0)
    tilted = _patch(rng, (0, 0, 0), (1, 0, 0), slope, 0.05, 0)
    points = np.concatenate((flat, tilted))
    up = np.repeat([[0, 0, 1.0], [0, -slope[2], slope[1]]], [len(flat), len(tilted)], axis=0)
    concave = superpoints_from_points(points, normals=up, threshold=40.0)
    convex = superpoints_from_points(points, normals=-up, threshold=40.0)
    assert concave.max() == 1
    assert convex.max() == 0


def test_point_order_and_position_do_not_matter():
    points, colors, _ = _room(spacing=0.08)
    ids = superpoints_from_points(points, colors)
    assert np.array_equal(ids, superpoints_from_points(points, colors))
    order = np.random.default_rng(3).permutation(len(points))
    shuffled = superpoints_from_points(points[order], colors[order])
    assert _same_partition(shuffled, ids[order])
    shift = np.array([100.0, -50.0, 3.0])
    moved = superpoints_from_points(points.astype(np.float64) + shift, colors)
    assert _same_partition(moved, ids)


def test_ids_are_numbered_by_first_appearance():
    points, colors, _ = _room(spacing=0.08)
    ids = superpoints_from_points(points, colors)
    _, first = np.unique(ids, return_index=True)
    assert (np.diff(first) > 0).all()


def test_small_and_degenerate_clouds():
    assert superpoints_from_points(np.zeros((0, 3))).shape == (0,)
    assert superpoints_from_points(np.zeros((1, 3))).tolist() == [0]
    assert superpoints_from_points(np.zeros((50, 3)), np.zeros((50, 3))).tolist() == [0] * 50
    assert superpoints_from_points(np.array([[0, 0, 0], [5, 0, 0]])).shape == (2,)
    line = np.linspace(0, 1, 100)[:, None] * [[1.0, 0, 0]]
    assert superpoints_from_points(line).shape == (100,)
    assert superpoints_from_points(np.zeros((5, 3)), min_spacing=0).tolist() == [0] * 5


def test_duplicates_share_their_superpoint():
    points, colors, _ = _room(spacing=0.1)
    ids = superpoints_from_points(np.repeat(points, 3, 0), np.repeat(colors, 3, 0))
    assert np.array_equal(ids[::3], ids[1::3])
    assert np.array_equal(ids[::3], ids[2::3])


def test_islands_join_the_nearest_large_segment():
    rng = np.random.default_rng(4)
    left = _patch(rng, (0, 0, 0), (1, 0, 0), (0, 1, 0), 0.05, 0)
    right = _patch(rng, (5, 0, 0), (1, 0, 0), (0, 1, 0), 0.05, 0)
    ids = superpoints_from_points(np.concatenate((left, right, [[1.9, 0.5, 0], [4.2, 0.5, 0]])))
    assert ids.max() == 1
    assert ids[-2] == ids[0]
    assert ids[-1] == ids[len(left)]
    assert ids[0] != ids[len(left)]


def test_mesh_of_two_boxes():
    """Inside a mesh, separate boxes never share a superpoint; each face of a large one is whole."""
    boxes = [trimesh.creation.box((1, 1, 1)).subdivide().subdivide().subdivide() for _ in range(2)]
    boxes[1].apply_translation((3, 0, 0))
    mesh = trimesh.util.concatenate(boxes)
    ids = superpoints_from_mesh(mesh.vertices, mesh.faces, min_area=0)
    assert not set(ids[mesh.vertices[:, 0] < 1.5]) & set(ids[mesh.vertices[:, 0] > 1.5])
    top = (mesh.vertices[:, 2] > 0.49) & (np.abs(mesh.vertices[:, :2]).max(1) < 0.4)
    assert len(np.unique(ids[top])) == 1


def test_mesh_without_faces_and_stray_vertices():
    grid = trimesh.creation.box((1, 1, 0.2)).subdivide().subdivide()
    vertices = np.concatenate((grid.vertices, [[0.0, 0.0, 0.3]]))
    ids = superpoints_from_mesh(vertices, grid.faces)
    assert np.bincount(ids).min() > 1
    assert superpoints_from_mesh(np.zeros((0, 3)), np.zeros((0, 3), int)).shape == (0,)
    assert superpoints_from_mesh(np.zeros((1, 3)), np.zeros((0, 3), int)).tolist() == [0]
    assert superpoints_from_mesh(np.eye(3), np.zeros((0, 3), int)).shape == (3,)


def test_estimated_normals_of_a_sphere():
    directions = np.random.default_rng(5).normal(size=(4000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosine = np.abs((normals_of_neighbors(directions) * directions).sum(1))
    assert np.quantile(cosine, 0.01) > 0.99


def test_mesh_normals_of_a_sphere():
    sphere = trimesh.creation.icosphere(3)
    np.testing.assert_allclose(
        mesh_vertex_normals(sphere.vertices, sphere.faces), sphere.vertices, atol=0.02
    )


def test_bad_input_is_named():
    with pytest.raises(ValueError, match='points must be numbers'):
        superpoints_from_points(np.zeros((4, 6)))
    with pytest.raises(ValueError, match='colors must have 4 rows'):
        superpoints_from_points(np.zeros((4, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match='points hold NaN'):
        superpoints_from_points(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match='faces name vertices'):
        superpoints_from_mesh(np.zeros((3, 3)), np.array([[0, 1, 3]]))
    with pytest.raises(ValueError, match='faces must be integers'):
        superpoints_from_mesh(np.zeros((3, 3)), np.array([[0.0, 1, 2]]))


def test_arguments_are_left_as_they_are():
    points, colors, _ = _room(spacing=0.1)
    kept = points.copy(), colors.copy()
    superpoints_from_points(points, colors)
    assert np.array_equal(points, kept[0])
    assert np.array_equal(colors, kept[1])
