"""Lifting the views of a batch against dense lifting of each view, and maps that are kept."""

from dataclasses import replace

import pytest
import torch

from oneformer3d.backbones.fpn import FeaturePyramid, ImageMaps
from oneformer3d.lifting import Camera, lift_features_to_points, project_pairs, view_agreement
from oneformer3d.lifting.aggregation import build_aggregator
from oneformer3d.mvpnet.lift_views import PyramidMaps, lift_views, read_maps, stored_maps
from tests.helpers.fusion_scenes import IMAGE_SIZE, INTRINSICS, poses, views_of

C = 8


def image_views(points, num_views=3, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(
        0, 256, (num_views, 3, *IMAGE_SIZE), dtype=torch.uint8, generator=generator
    )
    return views_of(points, num_views, seed=seed, feat=None, **{'images': images, **changes})


def points_of(num_points=200, seed=0):
    return torch.rand(num_points, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope='module')
def pyramid() -> FeaturePyramid:
    torch.manual_seed(0)
    return FeaturePyramid('resnet18', channels=C, frozen=True)


@pytest.mark.parametrize('name', ['mean', 'confidence'])
def test_lifted_equal_dense_tables(name):
    """Against one table (V, N, C) of every view, weighted by distance."""
    points, maps = points_of(), torch.randn(3, C, 10, 12)
    views = views_of(points, feat=maps)
    aggregator = build_aggregator(name, C)
    lifted = lift_views(stored_maps, aggregator, [points], [views])

    xyz, world_from_cam = points[:, :3], poses(3)
    table, visible = lift_features_to_points(
        xyz,
        {'a': maps},
        INTRINSICS.expand(3, 3, 3),
        world_from_cam,
        IMAGE_SIZE,
        padding_mode='border',
    )
    distance = (world_from_cam[:, None, :3, 3] - xyz).norm(dim=-1)
    weight = visible * (torch.exp(-distance / 10) if name == 'confidence' else 1.0)
    seen = visible.any(0)
    assert seen.any()
    assert not seen.all()
    assert lifted.visible.equal(seen)
    expected = (table * weight[..., None]).sum(0) / weight.sum(0)[:, None]
    torch.testing.assert_close(lifted.features[seen], expected[seen], atol=1e-5, rtol=1e-4)
    assert (lifted.features[~seen] == aggregator.no_view).all()


def test_the_viewing_angle_counts_on_request():
    """Points on a floor: the mean is weighted by distance and by the cosine to the vertical."""
    points = points_of()
    points[:, 2] = 0.0
    maps = torch.randn(3, C, 10, 12)
    views = views_of(points, feat=maps)
    aggregator = build_aggregator('confidence', C)
    lifted = lift_views(
        stored_maps, aggregator, [points], [views], normal_voxel=0.2, with_agreement=True
    )
    xyz = points[:, :3]
    table, visible = lift_features_to_points(
        xyz,
        {'a': maps},
        INTRINSICS.expand(3, 3, 3),
        poses(3),
        IMAGE_SIZE,
        padding_mode='border',
    )
    to_camera = poses(3)[:, None, :3, 3] - xyz
    distance = to_camera.norm(dim=-1)
    weight = visible * torch.exp(-distance / 10) * (to_camera[..., 2].abs() / distance)
    seen = visible.any(0)
    expected = (table * weight[..., None]).sum(0) / weight.sum(0)[:, None]
    torch.testing.assert_close(lifted.features[seen], expected[seen], atol=1e-5, rtol=1e-4)
    agreement = view_agreement(table.transpose(0, 1), weight.t())
    torch.testing.assert_close(lifted.agreement, agreement, atol=1e-5, rtol=1e-4)
    plain = lift_views(stored_maps, aggregator, [points], [views])
    assert plain.agreement is None
    assert not torch.allclose(plain.features[seen], expected[seen], atol=1e-3)


def test_samples_do_not_meet(pyramid):
    aggregator = build_aggregator('attention', C).eval()
    clouds = [points_of(100), points_of(60, 1), points_of(40, 2), points_of(30, 3)]
    views = [image_views(clouds[0]), None, image_views(clouds[2], 2, 2), image_views(clouds[3], 0)]
    maps_of = PyramidMaps(pyramid)
    batch = lift_views(maps_of, aggregator, clouds, views)
    for i, part in enumerate(batch.features.split([100, 60, 40, 30])):
        alone = lift_views(maps_of, aggregator, clouds[i : i + 1], views[i : i + 1])
        torch.testing.assert_close(part, alone.features, atol=1e-5, rtol=1e-4)
    assert not batch.visible[100:160].any()
    assert (batch.features[100:160] == aggregator.no_view).all()
    assert not batch.visible[200:].any()


def test_pieces_change_nothing(pyramid):
    aggregator = build_aggregator('attention', C).eval()
    points = points_of()
    views = image_views(points)
    with torch.no_grad():
        whole = lift_views(PyramidMaps(pyramid), aggregator, [points], [views], max_views=2)
        pieces = lift_views(
            PyramidMaps(pyramid), aggregator, [points], [views], max_views=2, chunk_size=7
        )
    torch.testing.assert_close(pieces.features, whole.features, atol=1e-6, rtol=1e-5)
    assert pieces.visible.equal(whole.visible)


def test_augmentation_changes_nothing(pyramid):
    aggregator = build_aggregator('attention', C)
    points = points_of()
    views = image_views(points)
    moved = torch.eye(4)
    moved[:3, :3] = torch.tensor([[0.0, -1.2, 0.0], [-1.2, 0.0, 0.0], [0.0, 0.0, 1.2]])
    moved[:3, 3] = torch.tensor([2.0, 0.5, -1.0])
    augmented = points.clone()
    augmented[:, :3] = points[:, :3] @ moved[:3, :3].T + moved[:3, 3]
    straight = lift_views(PyramidMaps(pyramid), aggregator, [points], [views])
    turned = lift_views(
        PyramidMaps(pyramid),
        aggregator,
        [augmented],
        [replace(views, augmented_from_original=moved)],
    )
    torch.testing.assert_close(turned.features, straight.features, atol=1e-5, rtol=1e-4)


def test_images_of_another_size_show_the_same_place():
    """A ramp in a smaller image is read at the pixel of the full one."""
    points = points_of()
    camera = Camera(INTRINSICS, poses(2), IMAGE_SIZE)
    views = views_of(points, 2, feat=None, images=torch.zeros(2, 3, 15, 20, dtype=torch.uint8))
    v, u = torch.meshgrid(torch.arange(15.0), torch.arange(20.0), indexing='ij')
    ramp = torch.stack((u, v)).expand(2, 2, 15, 20)
    read = read_maps(ImageMaps((ramp,), (15, 20)), views.pairs, views)
    pairs = project_pairs(points[:, :3], camera)
    expected = ((pairs.uv + 0.5) / 2 - 0.5).clamp(torch.zeros(2), torch.tensor([19.0, 14.0]))
    torch.testing.assert_close(read, expected, atol=1e-4, rtol=0)
    hidden = replace(views, pixels_masked=True)
    assert (read_maps(ImageMaps((ramp,), (15, 20)), hidden.pairs, hidden) == 0).all()


def test_bad_input(pyramid):
    points = points_of()
    aggregator = build_aggregator('mean', C)
    with pytest.raises(ValueError, match='views of 200 points, got 100'):
        lift_views(stored_maps, aggregator, [points[:100]], [views_of(points)])
    with pytest.raises(ValueError, match='1 point clouds but 2 views'):
        lift_views(stored_maps, aggregator, [points], [None, None])
    with pytest.raises(ValueError, match='have no images'):
        lift_views(PyramidMaps(pyramid), aggregator, [points], [views_of(points)])
    with pytest.raises(ValueError, match='no stored feature maps'):
        lift_views(stored_maps, aggregator, [points], [image_views(points)])
