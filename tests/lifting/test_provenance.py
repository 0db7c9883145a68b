"""Sources of lifted features: hand-placed points, and agreement with what lifting reads."""

import math

import pytest
import torch

from oneformer3d.lifting import Reason, Visibility, lift_features_to_points, trace_sources
from tests.helpers.lifting_scenes import make_camera, room_depth, room_points

IMAGE = (48, 64)


def test_every_reason_by_hand():
    camera = make_camera(1)[0]
    pose = camera.world_from_cam
    depth = torch.full(IMAGE, 2.0, dtype=torch.float64)
    depth[:, 50:] = 3.0
    depth[5, 5] = 0
    small = [(30, 20, 2.0), (30, 20, -2.0), (90, 20, 2.0), (5, 5, 2.0), (49, 20, 2.0)]
    small += [(30, 20, 2.5), (30, 20, 1.5), (31, 21, 2.0)]
    uvz = torch.tensor(small, dtype=torch.float64)
    rays = torch.stack(((uvz[:, 0] - 30.2) / 53, (uvz[:, 1] - 24.1) / 54, torch.ones(8)), 1)
    points = (rays * uvz[:, 2:]) @ pose[:3, :3].T + pose[:3, 3]
    points = torch.cat((points, torch.full((1, 3), math.nan)))
    weights = torch.ones(9, dtype=torch.float64)
    weights[7] = 0
    found = trace_sources(
        points,
        camera.intrinsics,
        pose,
        IMAGE,
        depth,
        weights=weights,
        visibility=Visibility(edge_reject=True),
    )
    names = [Reason(x).name for x in found.reason[0].tolist()]
    assert names == [
        'SEEN', 'BEHIND', 'OUTSIDE', 'NO_DEPTH', 'DEPTH_EDGE', 'OCCLUDED', 'BEFORE_SURFACE',
        'NO_WEIGHT', 'NOT_FINITE',
    ]  # fmt: skip
    assert set(names) == {reason.name for reason in Reason}
    assert found.weight[0].tolist() == [1] + 8 * [0]
    assert found.measured[0].tolist() == [2, 0, 0, 0, 2, 2, 2, 2, 0]
    entry = found.of_point(5)[0]
    assert entry['reason'] == 'occluded'
    assert entry['uv'] == pytest.approx((30, 20))
    assert entry['depth_z'] == pytest.approx(2.5)
    assert entry['measured'] == 2
    assert found.of_point(8)[0]['uv'] is None
    assert found.summary()['seen'] == 1
    with pytest.raises(IndexError, match='point 9'):
        found.of_point(9)


@pytest.mark.parametrize('edge_reject', [False, True])
@pytest.mark.parametrize('source', ['frustum', 'depth', 'zbuffer'])
def test_seen_is_what_lifting_reads(source, edge_reject):
    camera, points = make_camera(4), room_points(500)
    depth = room_depth(camera) if source == 'depth' else None
    occlusion = 'zbuffer' if source == 'zbuffer' else None
    options = {'visibility': Visibility(edge_reject=edge_reject, occlusion=occlusion)}
    arguments = (camera.intrinsics, camera.world_from_cam, IMAGE, depth)
    features = {'a': torch.randn(4, 3, 6, 8, dtype=torch.float64)}
    _, visible = lift_features_to_points(points, features, *arguments, **options)
    found = trace_sources(points, *arguments, **options)
    assert torch.equal(found.seen, visible)
    assert sum(found.summary().values()) == 4 * 500
    assert found.summary()['behind'] > 100
    # Some points of a cloud are traced as the whole cloud is.
    if source == 'zbuffer':
        some = trace_sources(points[:20], *arguments, cloud=points, **options)
        assert torch.equal(some.reason, found.reason[:, :20])


def test_weights_rebuild_the_feature():
    camera, points = make_camera(4), room_points(300)
    depth = room_depth(camera)
    arguments = (camera.intrinsics, camera.world_from_cam, IMAGE, depth)
    features = {'a': torch.randn(4, 3, 6, 8, dtype=torch.float64)}
    weights = torch.rand(4, 300, dtype=torch.float64)
    lifted, visible = lift_features_to_points(points, features, *arguments)
    found = trace_sources(points, *arguments, weights=weights)
    shares = visible * weights
    expected = (lifted * shares[..., None]).sum(0) / shares.sum(0).clamp(min=1e-9)[:, None]
    torch.testing.assert_close((lifted * found.weight[..., None]).sum(0), expected)
    total = found.weight.sum(0)
    torch.testing.assert_close(total, visible.any(0).double())
    row = int(found.seen.sum(0).argmax())
    entries = found.of_point(row)
    assert [e['weight'] for e in entries] == sorted((e['weight'] for e in entries), reverse=True)
    assert sum(e['weight'] for e in entries) == pytest.approx(1)
    view = entries[0]['view']
    assert entries[0]['uv'] == pytest.approx(found.uv[view, row].tolist())


def test_empty_and_bad_input():
    camera = make_camera(2)
    arguments = (camera.intrinsics, camera.world_from_cam, IMAGE)
    assert trace_sources(room_points(0), *arguments).reason.shape == (2, 0)
    with pytest.raises(ValueError, match='occlusion'):
        Visibility(occlusion='mesh')
    with pytest.raises(ValueError, match='occlusion'):
        trace_sources(
            room_points(3),
            *arguments,
            torch.ones(2, 4, 4),
            visibility=Visibility(occlusion='zbuffer'),
        )
    with pytest.raises(ValueError, match='weights: expected'):
        trace_sources(room_points(3), *arguments, weights=torch.ones(3))
