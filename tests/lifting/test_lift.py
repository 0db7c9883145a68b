"""Lifting against closed forms, a dense plain-torch twin, finite differences and bad input."""

import math

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.lifting import (
    Visibility,
    check_grid_sample_shapes,
    lift_features_to_points,
    lift_mean_features,
    pixel_to_grid_coords,
    zbuffer_views,
)
from tests.helpers.lifting_scenes import column_row_maps, make_camera, room_depth, room_points
from tests.lifting.test_memory import _temporary_bytes

IMAGE = (48, 64)
SCALES = {'feat_1/1': (48, 64), 'feat_1/4': (12, 16), 'feat_1/8': (6, 8), 'odd': (5, 9)}
DOUBLE = torch.float64


def _lift(points, features, camera, depth=None, **options):
    return lift_features_to_points(
        points, features, camera.intrinsics, camera.world_from_cam, IMAGE, depth, **options
    )


def _ramps(num_views=None):
    ramps = {name: column_row_maps(size, IMAGE) for name, size in SCALES.items()}
    if num_views is None:
        return ramps
    return {name: ramp.expand(num_views, *ramp.shape) for name, ramp in ramps.items()}


def _random_features(num_views=3, channels=(3, 5, 2, 4), dtype=DOUBLE):
    return {
        name: torch.randn(num_views, width, *size, dtype=dtype)
        for (name, size), width in zip(SCALES.items(), channels)
    }


def _dense_twin(points, features, camera, depth, mode='bilinear', padding_mode='border'):
    """One view and one scale at a time, every point, in plain torch and numbers of its own."""
    rows, seen = [], []
    for view in range(len(camera.world_from_cam)):
        pose, K = camera.world_from_cam[view], camera.intrinsics[view]
        local = (points - pose[:3, 3]) @ pose[:3, :3]  # the inverse of a rotation
        z = local[:, 2]
        uv = (local @ K.T)[:, :2] / z[:, None]
        column, row = (uv + 0.5).floor().long().unbind(1)
        inside = (z > 0.05) & (column >= 0) & (column < 64) & (row >= 0) & (row < 48)
        if depth is not None:
            measured = depth[view, row.clamp(0, 47), column.clamp(0, 63)]
            inside &= (measured > 0) & ((z - measured).abs() <= 0.05 + 0.01 * measured)
        grid = torch.stack((2 * uv[:, 0] + 1, 2 * uv[:, 1] + 1), 1)
        grid = grid / torch.tensor([64.0, 48.0], dtype=DOUBLE) - 1
        grid = torch.where(inside[:, None], grid, 0.0)
        scales = [
            F.grid_sample(
                maps[view][None], grid[None, :, None], mode, padding_mode, align_corners=False
            )[0, :, :, 0].T
            for maps in features.values()
        ]
        rows.append(torch.cat(scales, 1) * inside[:, None])
        seen.append(inside)
    return torch.stack(rows), torch.stack(seen)


def test_a_ramp_lifts_to_its_own_coordinates_at_every_scale():
    camera, points = make_camera(3), room_points(500)
    lifted, visible = _lift(points, _ramps(3), camera)
    assert lifted.shape == (3, 500, 8)
    assert visible.shape == (3, 500)
    uv, _ = camera.project(points)
    for column, (height, width) in enumerate(SCALES.values()):
        # Between a map's outermost cell centres a ramp has no border.
        margin = torch.tensor([0.5 * 64 / width - 0.5, 0.5 * 48 / height - 0.5], dtype=DOUBLE)
        far = torch.tensor([63.0, 47.0], dtype=DOUBLE) - margin
        checked = visible & ((uv >= margin) & (uv <= far)).all(-1)
        assert checked.sum() > 60
        read = lifted[..., 2 * column : 2 * column + 2]
        torch.testing.assert_close(read[checked], uv[checked], atol=1e-9, rtol=0)
    assert not lifted[~visible].any()


def test_pixel_and_cell_centres_read_their_values():
    camera = make_camera(1)[0]
    for size in SCALES.values():
        small = camera.resize(size)
        depth = 1 + torch.rand(*size, dtype=DOUBLE)
        points = small.unproject(depth).reshape(-1, 3)
        features = {'map': torch.randn(4, *size, dtype=DOUBLE)}
        for mode in ('bilinear', 'nearest', 'bicubic'):
            lifted, visible = _lift(points, features, camera, mode=mode)
            assert visible.all()
            expected = features['map'].flatten(1).T
            torch.testing.assert_close(lifted, expected, atol=1e-9, rtol=0)


def test_camera_centre_and_one_metre_ahead():
    camera = make_camera(1)[0]
    pose = camera.world_from_cam
    points = torch.stack((pose[:3, 3], pose[:3, 3] + pose[:3, 2], pose[:3, 3] - pose[:3, 2]))
    lifted, visible = _lift(points, {'ramp': _ramps()['feat_1/1']}, camera)
    assert visible.tolist() == [False, True, False]
    torch.testing.assert_close(lifted[1], torch.tensor([30.2, 24.1], dtype=DOUBLE))
    assert not lifted[[0, 2]].any()


def test_behind_a_wall_there_is_nothing():
    camera = make_camera(1)[0]
    ahead = camera.world_from_cam[:3, 2]
    points = camera.world_from_cam[:3, 3] + torch.tensor([[1.0], [2.0], [3.0]]) * ahead
    depth = torch.full(IMAGE, 2.0, dtype=DOUBLE)
    features = {'one': torch.ones(1, 6, 8, dtype=DOUBLE)}
    lifted, visible = _lift(points, features, camera, depth)
    assert visible.tolist() == [False, True, False]
    assert lifted[:, 0].tolist() == [0.0, 1.0, 0.0]
    assert _lift(points, features, camera)[1].all()
    hidden = _lift(points, features, camera, visibility=Visibility(occlusion='zbuffer'))[1]
    assert hidden.tolist() == [True, False, False]


@pytest.mark.parametrize('mode', ['bilinear', 'nearest', 'bicubic'])
@pytest.mark.parametrize('padding_mode', ['border', 'zeros', 'reflection'])
@pytest.mark.parametrize('with_depth', [False, True])
def test_equals_the_dense_twin(mode, padding_mode, with_depth):
    camera, points, features = make_camera(3), room_points(400), _random_features()
    depth = room_depth(camera) if with_depth else None
    expected, seen = _dense_twin(points, features, camera, depth, mode, padding_mode)
    lifted, visible = _lift(points, features, camera, depth, mode=mode, padding_mode=padding_mode)
    assert torch.equal(visible, seen)
    assert 40 < seen.sum() < 600
    torch.testing.assert_close(lifted, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
def test_a_batch_of_views_equals_a_loop(mode):
    camera, points, features = make_camera(4), room_points(300), _random_features(4)
    depth = room_depth(camera)
    lifted, visible = _lift(points, features, camera, depth, mode=mode)
    assert lifted.transpose(0, 1).is_contiguous()
    for view in range(4):
        one = {name: maps[view] for name, maps in features.items()}
        rows, seen = _lift(points, one, camera[view], depth[view], mode=mode)
        assert torch.equal(seen, visible[view])
        torch.testing.assert_close(rows, lifted[view], atol=1e-12, rtol=0)


def test_all_views_may_share_one_camera_matrix():
    camera, points, features = make_camera(3), room_points(100), _random_features(3)
    shared = lift_features_to_points(
        points, features, camera.intrinsics[0], camera.world_from_cam, IMAGE
    )
    torch.testing.assert_close(shared, _lift(points, features, camera))


@pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('padding_mode', ['border', 'zeros'])
def test_gradients_against_finite_differences(mode, padding_mode):
    camera = make_camera(2)
    points = room_points(60)
    seen = _lift(points, {'one': torch.ones(2, 1, 1, 1)}, camera)[1].any(0)
    points = torch.cat((points[seen][:6], points[~seen][:2]))
    pose = camera.world_from_cam

    def lift(points, coarse, fine, intrinsics, translation):
        moved = torch.cat((pose[:, :3, :3], translation[..., None]), -1)
        moved = torch.cat((moved, pose[:, 3:]), 1)
        return lift_features_to_points(
            points, {'coarse': coarse, 'fine': fine}, intrinsics, moved, IMAGE, mode=mode,
            padding_mode=padding_mode,
        )[0]  # fmt: skip

    inputs = (
        points,
        torch.randn(2, 2, 3, 4, dtype=DOUBLE),
        torch.randn(2, 1, 6, 8, dtype=DOUBLE),
        camera.intrinsics.clone(),
        pose[:, :3, 3].clone(),
    )
    assert _lift(points, {'m': inputs[1]}, camera)[1].sum() >= 3
    inputs = tuple(x.requires_grad_() for x in inputs)
    # K's last row and skews do not enter; gradcheck sees zeros on both sides there.
    assert torch.autograd.gradcheck(lift, inputs, eps=1e-6, atol=1e-5)


def test_gradients_of_the_mean_against_finite_differences():
    camera, points = make_camera(3), room_points(10)
    weights = torch.rand(3, 10, dtype=DOUBLE) + 0.1

    def mean(points, maps, weights):
        return lift_mean_features(
            points, {'m': maps, 'n': 2 * maps}, camera.intrinsics, camera.world_from_cam, IMAGE,
            weights=weights,
        )[0]  # fmt: skip

    inputs = (points, torch.randn(3, 2, 3, 4, dtype=DOUBLE), weights)
    assert torch.autograd.gradcheck(mean, tuple(x.requires_grad_() for x in inputs), atol=1e-5)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('combine', ['concat', 'sum'])
def test_the_mean_equals_lifting_and_averaging(weighted, combine):
    camera, points = make_camera(5), room_points(300)
    features = _random_features(5, channels=(3, 3, 3, 3))
    depth = room_depth(camera)
    weights = torch.rand(5, 300, dtype=DOUBLE) if weighted else None
    lifted, visible = _lift(points, features, camera, depth, combine=combine, padding_mode='border')
    shares = visible * (1.0 if weights is None else weights)
    total = shares.sum(0)
    expected = (lifted * shares[..., None]).sum(0) / total.clamp(min=1e-12)[:, None]
    mean, weight_sum = lift_mean_features(
        points, features, camera.intrinsics, camera.world_from_cam, IMAGE, depth,
        weights=weights, combine=combine,
    )  # fmt: skip
    torch.testing.assert_close(mean, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(weight_sum, total.to(DOUBLE))
    assert (total == 0).any()
    assert not mean[total == 0].any()


def test_scales_of_one_width_may_be_summed():
    camera, points = make_camera(2), room_points(100)
    features = _random_features(2, channels=(3, 3, 3, 3))
    summed, _ = _lift(points, features, camera, combine='sum')
    parts = _lift(points, features, camera)[0].unflatten(-1, (4, 3)).sum(-2)
    torch.testing.assert_close(summed, parts)
    with pytest.raises(ValueError, match='one width'):
        _lift(points, _random_features(2), camera, combine='sum')


def test_any_budget_gives_the_same_and_gradients_change_nothing():
    camera, points, features = make_camera(3), room_points(300), _random_features()
    large, _ = _lift(points, features, camera)
    small, _ = _lift(points, features, camera, byte_budget=1000)
    assert torch.equal(large, small)
    tracked, _ = _lift(points, {k: v.requires_grad_() for k, v in features.items()}, camera)
    assert torch.equal(large, tracked)


def test_temporary_memory_stays_within_the_budget():
    camera, points = make_camera(4, torch.float32), room_points(8000, torch.float32)
    features = {
        name: torch.randn(4, 32, *size).contiguous(memory_format=torch.channels_last)
        for name, size in (('a', (12, 16)), ('b', (6, 8)))
    }
    budget = 1 << 20
    arguments = (points, features, camera.intrinsics, camera.world_from_cam, IMAGE)
    num_slots = 4 * 8000
    # Whole-cloud values of a few bytes for each point and view come on top.
    slack = 60 * num_slots
    for function in (lift_features_to_points, lift_mean_features):
        used = _temporary_bytes(lambda call=function: call(*arguments, byte_budget=budget))
        assert 0 < used <= budget + slack
    # One whole scale would not fit.
    assert num_slots * 32 * 4 > budget + slack


def test_storage_types_and_half_points():
    camera, points = make_camera(2, torch.float32), room_points(100, torch.float32)
    features = _random_features(2, dtype=torch.float32)
    exact, visible = _lift(points, features, camera)
    halves, seen = _lift(points, {k: v.bfloat16() for k, v in features.items()}, camera)
    assert halves.dtype == torch.float32
    assert torch.equal(visible, seen)
    torch.testing.assert_close(halves, exact, atol=0.03, rtol=0.02)
    assert _lift(points.half(), features, camera)[0].dtype == torch.float32


def test_nothing_to_lift_is_an_empty_or_zero_result():
    camera, features = make_camera(2), _random_features(2)
    lifted, visible = _lift(room_points(0), features, camera)
    assert lifted.shape == (2, 0, 14)
    assert visible.shape == (2, 0)
    far = torch.full((5, 3), 1000.0, dtype=DOUBLE)
    for options in ({}, {'mode': 'nearest'}, {'visibility': Visibility(occlusion='zbuffer')}):
        lifted, visible = _lift(far, features, camera, **options)
        assert lifted.shape == (2, 5, 14)
        assert not lifted.any()
        assert not visible.any()
    none = make_camera(2)[torch.zeros(0, dtype=torch.int64)]
    empty = {name: maps[:0] for name, maps in features.items()}
    for options in ({}, {'mode': 'bicubic'}, {'visibility': Visibility(occlusion='zbuffer')}):
        lifted, visible = _lift(far, empty, none, **options)
        assert lifted.shape == (0, 5, 14)
        assert visible.shape == (0, 5)
    mean, weight = lift_mean_features(far, empty, none.intrinsics, none.world_from_cam, IMAGE)
    assert mean.shape == (5, 14)
    assert not mean.any()
    assert not weight.any()


def test_points_that_are_not_finite_get_nothing():
    camera, features = make_camera(2), _random_features(2)
    points = room_points(50)
    expected, _ = _lift(points, features, camera)
    points[3, 1], points[7, 0], points[9] = math.nan, math.inf, -math.inf
    for mode in ('bilinear', 'nearest', 'bicubic'):
        lifted, visible = _lift(points, features, camera, mode=mode)
        assert torch.isfinite(lifted).all()
        assert not visible[:, [3, 7, 9]].any()
        if mode == 'bilinear':
            good = torch.ones(50, dtype=torch.bool)
            good[[3, 7, 9]] = False
            assert torch.equal(lifted[:, good], expected[:, good])
    lifted, _ = _lift(points, features, camera, visibility=Visibility(occlusion='zbuffer'))
    assert torch.isfinite(lifted).all()


def test_bad_input_is_named():
    camera, points = make_camera(2), room_points(10)
    K, pose, features = camera.intrinsics.clone(), camera.world_from_cam, _random_features(2)

    def changed(matrix, value, *index):
        matrix = matrix.clone()
        matrix[index] = value
        return matrix

    poisoned = dict(features, odd=changed(features['odd'], math.nan, 1, 0, 2, 3))
    cases = [
        (r'focal length of zero: view \[1\]', {'camera_intrinsics': changed(K, 0.0, 1, 0, 0)}),
        (
            r'intrinsics are not finite: view \[0\]',
            {'camera_intrinsics': changed(K, math.nan, 0, 0, 2)},
        ),
        (r'singular: view \[1\]', {'camera_extrinsics': changed(pose, 0.0, 1, slice(0, 3), 2)}),
        (r'not finite: view \[0\]', {'camera_extrinsics': changed(pose, -math.inf, 0, 0, 3)}),
        (r'\(0, 0, 0, 1\)', {'camera_extrinsics': changed(pose, 1.0, 0, 3, 0)}),
        ('2 intrinsics but 3 extrinsics', {'camera_extrinsics': pose[[0, 1, 1]]}),
        (r'intrinsics: expected \(V, 3, 3\)', {'camera_intrinsics': pose}),
        (r'extrinsics: expected \(V, 4, 4\)', {'camera_extrinsics': pose[:, :3]}),
        (r"'feat_1/1'.* with V=2, got \(3, ", {'features_2d': _random_features(3)}),
        ('at least one name', {'features_2d': {}}),
        ('at least one name', {'features_2d': features['odd']}),
        (r'expected \(V, C, h, w\) with V=2', {'features_2d': {'a': features['odd'][0]}}),
        ('int64', {'features_2d': {'a': features['odd'].long()}}),
        (r"'odd'.*not finite: view \[1\]", {'features_2d': poisoned}),
        (r'empty: \(2, 0, 3, 4\)', {'features_2d': {'a': torch.zeros(2, 0, 3, 4)}}),
        (r'points: expected \(N, 3\)', {'points_3d': points[:, :2]}),
        ('points must be floating point', {'points_3d': points.long()}),
        (r'image_size must be', {'image_shape': (0, 64)}),
        (r'depth: expected \(V, h, w\) with V=2', {'depth': torch.ones(3, 48, 64)}),
        ('depth must be floating point, got .*int64', {'depth': torch.ones(2, 48, 64).long()}),
        ('mode must be one of', {'mode': 'trilinear'}),
        ('padding_mode must be one of', {'padding_mode': 'wrap'}),
        (
            'without depth',
            {'visibility': Visibility(occlusion='zbuffer'), 'depth': torch.ones(2, 48, 64)},
        ),
        ('byte_budget', {'byte_budget': 0}),
    ]
    good = {
        'points_3d': points,
        'features_2d': features,
        'camera_intrinsics': K,
        'camera_extrinsics': pose,
        'image_shape': IMAGE,
    }
    lift_features_to_points(**good)
    for message, change in cases:
        with pytest.raises(ValueError, match=message):
            lift_features_to_points(**{**good, **change})
    with pytest.raises(ValueError, match=r'weights: expected \(V, N\) with V=2, N=10'):
        lift_mean_features(**good, weights=torch.ones(10))


def test_large_finite_maps_are_no_fault():
    camera, points = make_camera(1), room_points(20)
    maps = torch.full((1, 2, 3, 4), 3e38)
    assert _lift(points, {'a': maps}, camera)[0].isfinite().all()


def test_zbuffer_equals_lifting_with_the_rendered_depth():
    camera, points, features = make_camera(3), room_points(2000), _random_features()
    rendered = zbuffer_views(points, camera, Visibility(point_size=5))
    expected = _lift(points, features, camera, rendered)
    found = _lift(
        points, features, camera, visibility=Visibility(occlusion='zbuffer', point_size=5)
    )
    torch.testing.assert_close(found, expected)
    assert found[1].sum() < _lift(points, features, camera)[1].sum()


def test_pixels_to_grid_coordinates():
    corner = pixel_to_grid_coords(torch.zeros(1, 2, dtype=DOUBLE), (480, 640))
    expected = torch.tensor([[1 / 640 - 1, 1 / 480 - 1]], dtype=DOUBLE)
    torch.testing.assert_close(corner, expected)
    assert corner[0].numpy().round(4).tolist() == [-0.9984, -0.9979]
    borders = pixel_to_grid_coords(torch.tensor([[-0.5, -0.5], [639.5, 479.5]]), (480, 640))
    assert borders.tolist() == [[-1.0, -1.0], [1.0, 1.0]]
    # The centre of every pixel reads that pixel.
    image = torch.randn(1, 2, 5, 7, dtype=DOUBLE)
    v, u = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing='ij')
    grid = pixel_to_grid_coords(torch.stack((u, v), -1).double(), (5, 7))
    torch.testing.assert_close(F.grid_sample(image, grid[None], align_corners=False), image)
    with pytest.raises(ValueError, match=r'pixel_coords: expected \(\.\.\., 2\)'):
        pixel_to_grid_coords(torch.zeros(4, 3), (5, 7))


def test_shapes_of_grid_sample():
    for input_shape, grid_shape in (
        ((2, 64, 100, 150), (2, 50, 75, 2)),
        ((1, 512, 32, 32), (1, 1000, 1, 2)),
        ((1, 1, 1, 1), (1, 1, 1, 2)),
    ):
        found = F.grid_sample(
            torch.zeros(input_shape), torch.zeros(grid_shape), align_corners=False
        )
        assert check_grid_sample_shapes(input_shape, grid_shape) == found.shape
    for message, input_shape, grid_shape in (
        ('one batch size, got 3 and 5', (3, 64, 32, 32), (5, 16, 16, 2)),
        ('must be 2', (1, 64, 32, 32), (1, 16, 16, 3)),
        ('input must have 4', (64, 32, 32), (1, 16, 16, 2)),
        ('grid must have 4', (1, 64, 32, 32), (16, 2)),
        ('input must be at least 1', (1, 0, 32, 32), (1, 16, 16, 2)),
        ('grid must be at least 1', (1, 4, 32, 32), (1, 16, 0, 2)),
    ):
        with pytest.raises(ValueError, match=message):
            check_grid_sample_shapes(input_shape, grid_shape)
