"""The renderer against a slow twin and scenes whose picture is known."""

import numpy as np
import pytest
import torch

from oneformer3d.lifting.camera import Camera
from oneformer3d.visualization.render import (
    PointRaster,
    eye_dome_shade,
    fill_gaps,
    point_spacing,
    rasterise,
    render_points,
)

RED, BLUE = np.array([255, 0, 0], np.uint8), np.array([0, 0, 255], np.uint8)


def front_camera(size: tuple[int, int] = (48, 64), focal: float = 50.0) -> Camera:
    """At the origin, looking along +z of the world, y down."""
    height, width = size
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    return Camera(torch.from_numpy(intrinsics), torch.eye(4, dtype=torch.float64), size)


def slow_rasterise(points, radii, camera):
    """Pixel by pixel: the disc whose depth, raised like a cone away from its centre, is least."""
    height, width = camera.image_size
    intrinsics = camera.intrinsics.numpy()
    focal = intrinsics[0, 0]
    index = np.full(camera.image_size, -1)
    best = np.full(camera.image_size, np.inf)
    for n, (x, y, z) in enumerate(points):
        if z <= 0.01:
            continue
        u = np.rint(focal * x / z + intrinsics[0, 2])
        v = np.rint(focal * y / z + intrinsics[1, 2])
        radius = np.clip(radii[n] * focal / z, 0.5, 24)
        for row in range(height):
            for column in range(width):
                distance = np.hypot(row - v, column - u)
                depth = z + distance * z / focal
                if distance <= radius and depth < best[row, column]:
                    best[row, column], index[row, column] = depth, n
    return index


def test_rasterise_equals_the_slow_twin() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform([-2, -2, -1], [2, 2, 4], (60, 3))
    radii = rng.uniform(0.01, 0.2, 60)
    camera = front_camera((24, 32), focal=20.0)
    index, depth = rasterise(points, radii, camera)
    np.testing.assert_array_equal(index, slow_rasterise(points, radii, camera))
    seen = index >= 0
    np.testing.assert_allclose(depth[seen], points[index[seen], 2], rtol=1e-6)
    assert np.isinf(depth[~seen]).all()
    assert 0 < seen.sum() < seen.size


def test_a_point_lands_on_its_pixel_and_the_nearer_hides_the_farther() -> None:
    camera = front_camera()
    # Pixel (row 10, column 20) of this camera, at depths 2 and 4.
    ray = np.array([(20 - 31.5) / 50, (10 - 23.5) / 50, 1.0])
    points = np.stack([4 * ray, 2 * ray])
    index, depth = rasterise(points, np.full(2, 1e-4), camera)
    assert index[10, 20] == 1
    assert depth[10, 20] == pytest.approx(2.0)
    assert (index >= 0).sum() == 1


def test_background_is_white_and_a_lit_surface_keeps_its_color() -> None:
    x, y = np.meshgrid(np.arange(-0.5, 0.5, 0.02), np.arange(-0.5, 0.5, 0.02))
    wall = np.stack([x.ravel(), y.ravel(), np.full(x.size, 3.0)], axis=1)
    colors = np.tile(np.array([[90, 160, 30]], np.uint8), (len(wall), 1))
    image = render_points(wall, colors, camera=front_camera())
    assert (image[0] == 255).all()
    assert (image[24, 32] == [90, 160, 30]).all()
    assert image.dtype == np.uint8
    assert image.shape == (48, 64, 3)


def test_hidden_surface_is_not_painted() -> None:
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 60), np.linspace(-0.5, 0.5, 60))
    front = np.stack([x.ravel(), y.ravel(), np.full(x.size, 2.0)], axis=1)
    behind = front * [1, 1, 0] + [0, 0, 2.4]
    colors = np.concatenate([np.tile(RED, (3600, 1)), np.tile(BLUE, (3600, 1))])
    image = render_points(np.concatenate([front, behind]), colors, camera=front_camera())
    assert not ((image[..., 2] > 100) & (image[..., 0] < 100)).any()
    assert ((image[..., 0] > 200) & (image[..., 2] < 50)).sum() > 400


def test_room_from_above_shows_the_floor_under_its_ceiling() -> None:
    grid = np.stack(np.meshgrid(np.arange(0, 3, 0.05), np.arange(0, 3, 0.05)), -1).reshape(-1, 2)
    floor = np.column_stack([grid, np.zeros(len(grid))])
    ceiling = np.column_stack([grid, np.full(len(grid), 2.4)])
    colors = np.concatenate([np.tile(BLUE, (len(grid), 1)), np.tile(RED, (len(grid), 1))])
    for view in ('top', 'dollhouse'):
        image = render_points(np.concatenate([floor, ceiling]), colors, (96, 128), view)
        blue = (image[..., 2] > 150) & (image[..., 0] < 60)
        red = (image[..., 0] > 150) & (image[..., 2] < 60)
        assert blue.mean() > 0.25
        assert not red.any()


def test_gaps_between_points_close_and_the_outline_stays() -> None:
    index = np.full((20, 20), -1, dtype=np.int64)
    index[4:16:2, 4:16:2] = np.arange(36).reshape(6, 6)
    depth = np.where(index >= 0, np.float32(2), np.float32(np.inf))
    filled, filled_depth = fill_gaps(index, depth, 2)
    assert (filled[5:14, 5:14] >= 0).all()
    assert (filled[:4] == -1).all()
    assert (filled[:, 16:] == -1).all()
    np.testing.assert_array_equal(filled[index >= 0], index[index >= 0])
    assert np.isfinite(filled_depth[filled >= 0]).all()


def test_eye_dome_darkens_behind_an_edge_only() -> None:
    depth = np.full((20, 40), 2.0, dtype=np.float32)
    depth[:, 20:] = 3.0
    shade = eye_dome_shade(depth, pixel_radius=1)
    assert (shade[:, :19] == 1).all()
    assert (shade[5:15, 20] < 0.7).all()
    assert (shade[5:15, 25:38] == 1).all()
    assert (eye_dome_shade(np.full((9, 9), np.inf, np.float32)) == 1).all()


def test_spacing_of_a_grid() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(10) * 0.05] * 3), -1).reshape(-1, 3)
    np.testing.assert_allclose(point_spacing(grid), 0.05)
    assert point_spacing(np.zeros((1, 3))).shape == (1,)


@pytest.mark.parametrize('num_points', [1, 2, 3])
def test_tiny_clouds(num_points: int) -> None:
    points = np.arange(3.0 * num_points).reshape(num_points, 3)
    image = render_points(points, np.zeros((num_points, 3), np.uint8), (48, 64))
    assert (image < 128).any()


def test_doubled_points_do_not_break_it() -> None:
    image = render_points(np.zeros((50, 3)), np.zeros((50, 3), np.uint8), (48, 64))
    assert (image < 255).any()


def test_one_raster_many_paints() -> None:
    points = np.random.default_rng(0).random((500, 3))
    raster = PointRaster(points, (48, 64))
    red = raster.paint(np.tile(RED, (500, 1)))
    blue = raster.paint(np.tile(BLUE, (500, 1)))
    np.testing.assert_array_equal(red[..., 0], blue[..., 2])
    np.testing.assert_array_equal(red, render_points(points, np.tile(RED, (500, 1)), (48, 64)))


@pytest.mark.parametrize(
    ('points', 'colors', 'camera'),
    [
        (np.zeros((0, 3)), np.zeros((0, 3)), 'top'),
        (np.zeros((3, 2)), np.zeros((3, 3)), 'top'),
        (np.zeros((3, 3)), np.zeros((2, 3)), 'top'),
        (np.zeros((3, 3)), np.zeros((3, 3)), 'side'),
    ],
)
def test_bad_input(points, colors, camera) -> None:
    with pytest.raises(ValueError):
        render_points(points, colors, (48, 64), camera)


def test_stray_points_do_not_shrink_the_scan():
    rng = np.random.default_rng(0)
    room = rng.uniform(0, [5, 4, 1], (20_000, 3))
    far = rng.normal(size=(30, 3)) * 2000
    for view in ('dollhouse', 'top'):
        alone = PointRaster(room, (60, 80), view)
        both = PointRaster(np.concatenate([room, far]), (60, 80), view)
        assert alone.num_stray == 0
        assert both.num_stray == 30
        assert np.array_equal(alone.index, both.index)


def test_points_of_one_place_are_drawn_as_one():
    places = np.random.default_rng(0).uniform(0, 3, (300, 3))
    once = PointRaster(places, (60, 80))
    often = PointRaster(np.tile(places, (400, 1)), (60, 80))
    assert np.array_equal(once.index, often.index)


@pytest.mark.parametrize('view', ['dollhouse', 'top'])
def test_heaps_lines_and_towers_are_drawn(view):
    rng = np.random.default_rng(0)
    line = np.linspace(0, 8000, 50_000)
    flat = np.zeros_like(line)
    heap = np.concatenate([rng.normal(size=(30_000, 3)) * 0.05, rng.uniform(0, 3e3, (45_000, 3))])
    for points in (
        np.zeros((100_000, 3)),
        np.stack([line, flat, flat], axis=1),
        np.stack([flat, flat, line], axis=1),
        heap,
    ):
        raster = PointRaster(points, (60, 80), view)
        assert (raster.index >= 0).any()
