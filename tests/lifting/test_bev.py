"""The bird's-eye grid against hand-placed samples, a loop over cells and finite differences."""

import pytest
import torch

from oneformer3d.lifting import (
    BEVFeatureLifting,
    Camera,
    Visibility,
    drop_depth_edges,
    zbuffer_views,
)
from oneformer3d.lifting.bev import lift_cells
from tests.helpers.lifting_scenes import make_camera, room_depth, room_points

DOUBLE = torch.float64
IMAGE = (48, 64)


def _upright(camera: Camera) -> Camera:
    """The scene's cameras in a world whose z is up: its y points down."""
    turn = torch.tensor(
        [[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=camera.intrinsics.dtype
    )
    return Camera(camera.intrinsics, turn @ camera.world_from_cam, camera.image_size)


def _scene(num_views=2, channels=3, size=(6, 8)):
    camera = _upright(make_camera(num_views))
    depth = room_depth(make_camera(num_views))
    return camera, depth, torch.randn(num_views, channels, *size, dtype=DOUBLE)


def _loop(lifting, features, camera, depth):
    """One cell of one map at a time, in Python numbers."""
    samples: dict = {}
    num_views, _, h, w = features.shape
    for view in range(num_views):
        K, pose = camera.intrinsics[view], camera.world_from_cam[view]
        for row in range(h):
            for column in range(w):
                u, v = (column + 0.5) * 64 / w - 0.5, (row + 0.5) * 48 / h - 0.5
                z = float(depth[view, int(v + 0.5), int(u + 0.5)])
                if z <= 0:
                    continue
                ray = torch.stack(((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], K[2, 2]))
                x, y, up = (pose[:3, :3] @ (z * ray) + pose[:3, 3]).tolist()
                if lifting.height_range and not (
                    lifting.height_range[0] <= up <= lifting.height_range[1]
                ):
                    continue
                height, width = lifting.size
                i = (y - lifting.center[1]) / lifting.resolution + height / 2
                j = (x - lifting.center[0]) / lifting.resolution + width / 2
                if 0 <= i < height and 0 <= j < width:
                    samples.setdefault((int(i), int(j)), []).append(features[view, :, row, column])
    grid = torch.zeros(features.shape[1], *lifting.size, dtype=DOUBLE)
    count = torch.zeros(lifting.size, dtype=DOUBLE)
    for (i, j), rows in samples.items():
        rows = torch.stack(rows)
        grid[:, i, j] = {'mean': rows.mean(0), 'sum': rows.sum(0), 'max': rows.amax(0)}[
            lifting.reduce
        ]
        count[i, j] = len(rows)
    return grid, count


def _params(camera):
    return list(zip(camera.intrinsics, camera.world_from_cam))


@pytest.mark.parametrize('reduce', ['mean', 'max', 'sum'])
def test_equals_a_loop_over_cells(reduce):
    camera, depth, features = _scene()
    lifting = BEVFeatureLifting(0.3, (15, 12), (0.2, -0.1), reduce, height_range=(-1.0, 1.0))
    grid, count = lifting.create_bev_features(
        None, features, _params(camera), image_shape=IMAGE, depth=depth
    )
    expected, expected_count = _loop(lifting, features, camera, depth)
    torch.testing.assert_close(grid, expected)
    torch.testing.assert_close(count, expected_count)
    assert count.max() > 1
    assert 0 < (count > 0).sum() < count.numel()


def test_defaults_are_ten_centimetres_and_200_cells():
    lifting = BEVFeatureLifting()
    corner = lifting.pixels(torch.tensor([[-9.95, -9.95, 0.0], [9.95, 9.95, 3.0]]))
    torch.testing.assert_close(
        corner, torch.tensor([[0.0, 0.0], [199.0, 199.0]]), atol=1e-4, rtol=0
    )
    grid, count = lifting.splat_rows(torch.tensor([[0.05, 1.05, 0.7]]), torch.ones(1, 2))
    assert grid.shape == (2, 200, 200)
    assert count.nonzero().tolist() == [[110, 100]]


def test_a_grid_reads_back_what_was_splatted():
    lifting = BEVFeatureLifting(0.5, (10, 10))
    v, u = torch.meshgrid(torch.arange(10.0), torch.arange(10.0), indexing='ij')
    points = torch.stack((u, v, 0 * u), -1).reshape(-1, 3).double() * 0.5 - 2.25
    rows = torch.randn(100, 4, dtype=DOUBLE)
    for splat in ('nearest', 'bilinear'):
        lift = BEVFeatureLifting(0.5, (10, 10), splat=splat)
        grid, weight = lift.splat_rows(points, rows)
        torch.testing.assert_close(weight, torch.ones(10, 10, dtype=DOUBLE))
        read, inside = lift.read_at_points(grid, points)
        assert inside.all()
        torch.testing.assert_close(read, rows)
    # A ramp over the grid reads the position between the cells.
    ramp = torch.stack((u, v)).double()
    free = 4 * torch.rand(50, 3, dtype=DOUBLE) - 2
    read, _ = lifting.read_at_points(ramp, free)
    torch.testing.assert_close(read, free[:, :2] / 0.5 + 4.5)
    outside = torch.tensor([[2.6, 0, 0], [0, -2.6, 0], [torch.nan, 0, 0], [2.49, 0, 0]])
    read, inside = lifting.read_at_points(ramp, outside.double())
    assert inside.tolist() == [False, False, False, True]
    assert not read[:3].any()


def test_bilinear_shares_add_up():
    positions = torch.randn(40, 3, dtype=DOUBLE)
    rows = torch.randn(40, 3, dtype=DOUBLE)
    lifting = BEVFeatureLifting(0.25, (60, 60), reduce='sum', splat='bilinear')
    grid, weight = lifting.splat_rows(positions, rows)
    torch.testing.assert_close(grid.sum((1, 2)), rows.sum(0))
    assert weight.sum() == pytest.approx(40)
    column = (grid.new_tensor(range(60)) - 29.5) * 0.25
    torch.testing.assert_close((weight.sum(0) * column).sum(), positions[:, 0].sum())


@pytest.mark.parametrize('reduce', ['mean', 'max', 'sum'])
def test_gradient_of_the_features(reduce):
    camera, depth, features = _scene(1, 2, (3, 4))
    lifting = BEVFeatureLifting(0.8, (6, 6), reduce=reduce)
    assert torch.autograd.gradcheck(
        lambda x: lifting.create_bev_features(
            None, x, _params(camera), image_shape=IMAGE, depth=depth
        )[0],
        (features.requires_grad_(),),
    )


def test_bilinear_splats_carry_gradients_to_depth_and_pose():
    camera, _, features = _scene(1, 1, (3, 4))
    small = torch.full((1, 3, 4), 1.7, dtype=DOUBLE) + 0.1 * torch.rand(1, 3, 4, dtype=DOUBLE)
    lifting = BEVFeatureLifting(0.6, (9, 9), reduce='sum', splat='bilinear')
    shift = torch.zeros(3, dtype=DOUBLE)

    def splat(features, depth, shift):
        move = torch.eye(4, dtype=DOUBLE)[None].clone()
        move = torch.cat((move[:, :, :3], torch.cat((shift, shift.new_ones(1)))[None, :, None]), 2)
        pose = move @ camera.world_from_cam
        params = list(zip(camera.intrinsics, pose))
        return lifting.create_bev_features(None, features, params, image_shape=IMAGE, depth=depth)[
            0
        ]

    inputs = tuple(x.requires_grad_() for x in (features, small, shift))
    assert torch.autograd.gradcheck(splat, inputs, eps=1e-7, atol=1e-4)


def test_sources_of_depth():
    camera, depth, features = _scene()
    lifting = BEVFeatureLifting(0.3, (30, 30))
    arguments = (features, _params(camera))

    def create(depth=None, points=None, **options):
        return lifting.create_bev_features(
            points, *arguments, image_shape=IMAGE, depth=depth, **options
        )

    given = create(depth)[0]
    images = torch.rand(2, 3, *IMAGE)
    asked = []

    def estimate(pictures):
        asked.append(pictures.shape)
        return depth

    estimated = create(estimate, images=images)[0]
    assert torch.equal(estimated, given)
    assert asked == [images.shape]
    # The y of the scene's room is the world's height here.
    points = room_points(4000)
    points = torch.stack((points[:, 0], points[:, 2], -points[:, 1]), 1)
    drawn = create(points=points)[0]
    expected = create(zbuffer_views(points, camera))[0]
    assert torch.equal(drawn, expected)
    assert drawn.any()
    visibility = Visibility(edge_reject=True)
    fewer = create(depth, visibility=visibility)[1]
    expected = create(drop_depth_edges(depth))[1]
    assert torch.equal(fewer, expected)
    one = lifting.create_bev_features(
        points, features[:1], _params(camera)[:1], 0.5, (30, 30), image_shape=IMAGE, depth=depth[0]
    )[0]
    assert one.shape == (3, 30, 30)


def test_cells_lift_to_their_centres():
    camera, depth, _ = _scene(2)
    positions, present = lift_cells(camera, depth, IMAGE)
    torch.testing.assert_close(positions, camera.unproject(depth))
    assert torch.equal(present, depth > 0)


def test_nothing_and_bad_input():
    camera, depth, features = _scene()
    lifting = BEVFeatureLifting(0.3, (5, 6))
    arguments = (features, _params(camera))

    def create(depth=None, points=None, **options):
        return lifting.create_bev_features(
            points, *arguments, image_shape=IMAGE, depth=depth, **options
        )

    grid, count = create(torch.zeros_like(depth))
    assert grid.shape == (3, 5, 6)
    assert not grid.any()
    assert not count.any()
    for message, call in (
        ('no depth', lambda: create()),
        ('at least one', lambda: lifting.create_bev_features(None, [], [], image_shape=IMAGE)),
        ('give image_shape', lambda: lifting.create_bev_features(None, *arguments, depth=depth)),
        ('needs images', lambda: create(lambda x: x)),
        ('must return a tensor', lambda: create(
            lambda x: 1.0, images=features)),
        ('depth: expected', lambda: create(depth[:1])),
        ('bev: expected', lambda: lifting.read_at_points(torch.zeros(2, 6, 5), depth[0, :, :3])),
        ('must be positive', lambda: BEVFeatureLifting(resolution=0.0)),
        ('must be positive', lambda: BEVFeatureLifting(size=(0, 3))),
        ('reduce must be', lambda: BEVFeatureLifting(reduce='median')),
        ('splat must be', lambda: BEVFeatureLifting(splat='cubic')),
        ('no shares', lambda: BEVFeatureLifting(reduce='max', splat='bilinear')),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()
