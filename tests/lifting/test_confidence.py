"""Confidence against its formulas written point by point, and what is known of simple scenes."""

import math

import pytest
import torch

from oneformer3d.lifting import (
    compute_feature_confidence,
    entropy_confidence,
    estimate_normals,
    fuse_predictions,
    view_agreement,
    vote_agreement,
)
from tests.helpers.lifting_scenes import make_camera, room_depth, room_points

DOUBLE = torch.float64
IMAGE = (48, 64)


def test_distance_and_angle_by_the_formula():
    camera, points = make_camera(3), room_points(50)
    normals = torch.nn.functional.normalize(torch.randn(50, 3, dtype=DOUBLE), dim=1)
    found = compute_feature_confidence(points, camera.world_from_cam, normals)
    assert found.shape == (3, 50)
    for view in range(3):
        centre = camera.world_from_cam[view, :3, 3].tolist()
        for row, (point, normal) in enumerate(zip(points.tolist(), normals.tolist())):
            away = [c - p for c, p in zip(centre, point)]
            distance = math.hypot(*away)
            cosine = sum(a * n for a, n in zip(away, normal)) / distance
            expected = math.exp(-distance / 10) * max(0.0, cosine)
            assert found[view, row] == pytest.approx(expected, abs=1e-12)
    one = compute_feature_confidence(points, camera.world_from_cam[1], normals, decay=2.0)
    assert one.shape == (50,)
    assert (one <= found[1]).all()


def test_incidence_is_the_cosine_to_the_optical_axis():
    camera = make_camera(1)[0]
    u = torch.tensor([30.2, 0.0, 63.0], dtype=DOUBLE)
    rays = torch.stack(((u - 30.2) / 53, torch.zeros(3, dtype=DOUBLE), torch.ones(3)), 1)
    pose = camera.world_from_cam
    points = rays @ pose[:3, :3].T * 2 + pose[:3, 3]
    points = torch.cat((points, pose[None, :3, 3] - pose[None, :3, 2]))
    found = compute_feature_confidence(points, pose, terms=['incidence'])
    expected = torch.cat((1 / rays.norm(dim=1), torch.zeros(1)))
    torch.testing.assert_close(found, expected)


def test_border_rises_over_its_margin():
    camera = make_camera(1)[0]
    uv = torch.tensor([[-0.5, 20], [0.7, 20], [1.9, 20], [30, 20], [30, 47.5], [70, 20]])
    rays = torch.cat((uv - torch.tensor([30.2, 24.1]), torch.ones(6, 1)), 1).double()
    rays[:, :2] /= torch.tensor([53.0, 54.0])
    pose = camera.world_from_cam
    points = rays @ pose[:3, :3].T + pose[:3, 3]
    found = compute_feature_confidence(
        points, pose, terms=['border'], intrinsics=camera.intrinsics, image_shape=IMAGE,
        border_margin=0.05,
    )  # fmt: skip
    margin = 0.05 * 48
    expected = torch.tensor([0, 1.2 / margin, 1, 1, 0, 0], dtype=DOUBLE)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_edge_term_by_the_formula():
    camera = make_camera(1)[0]
    depth = torch.full(IMAGE, 2.0, dtype=DOUBLE)
    depth[:, 32:] = 2.3
    depth[10, 10] = 0
    points = camera.unproject(depth.clamp(min=1)).reshape(-1, 3)
    found = compute_feature_confidence(
        points, camera.world_from_cam, terms=['edge'], intrinsics=camera.intrinsics,
        image_shape=IMAGE, depth=depth,
    ).reshape(IMAGE)  # fmt: skip
    expected = torch.ones(IMAGE, dtype=DOUBLE)
    expected[:, 31], expected[:, 32], expected[10, 10] = 0.07 / 0.3, 0.073 / 0.3, 0
    torch.testing.assert_close(found, expected)


def test_terms_multiply_and_chunks_change_nothing():
    camera, points = make_camera(2), room_points(300)
    arguments = {
        'intrinsics': camera.intrinsics,
        'image_shape': IMAGE,
        'depth': room_depth(camera),
    }
    terms = ('distance', 'angle', 'incidence', 'border', 'edge')
    whole = compute_feature_confidence(points, camera.world_from_cam, terms=terms, **arguments)
    product = torch.ones(2, 300, dtype=DOUBLE)
    for term in terms:
        product *= compute_feature_confidence(
            points, camera.world_from_cam, terms=[term], **arguments
        )
    torch.testing.assert_close(whole, product)
    small = compute_feature_confidence(
        points, camera.world_from_cam, terms=terms, byte_budget=2000, **arguments
    )
    assert torch.equal(whole, small)
    assert 0 < whole.max() <= 1


def test_nothing_known_is_no_nan():
    camera, points = make_camera(2), room_points(20)
    points[0] = math.nan
    points[1] = camera.world_from_cam[0, :3, 3]  # at the camera itself
    normals = torch.zeros(20, 3, dtype=DOUBLE)
    normals[2] = math.nan
    for normal in (None, normals):
        found = compute_feature_confidence(points, camera.world_from_cam, normal)
        assert found.isfinite().all()
        assert found[:, 0].tolist() == [0, 0]
    # Without a known normal only the distance counts.
    distance = compute_feature_confidence(points, camera.world_from_cam, terms=['distance'])
    torch.testing.assert_close(found[:, 1:], distance[:, 1:])
    assert compute_feature_confidence(points[:0], camera.world_from_cam).shape == (2, 0)
    assert compute_feature_confidence(points, camera.world_from_cam[:0]).shape == (0, 20)


def test_gradient_of_the_confidence():
    camera, normals = make_camera(2), torch.randn(6, 3, dtype=DOUBLE)
    points = room_points(6).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: compute_feature_confidence(p, camera.world_from_cam, normals / 3), (points,)
    )


def test_bad_confidence_input_is_named():
    camera, points = make_camera(2), room_points(5)
    pose = camera.world_from_cam
    for message, arguments in (
        ('terms must be some of', {'terms': ['depth']}),
        ('terms must be some of', {'terms': []}),
        ("'border' needs", {'terms': ['border'], 'image_shape': IMAGE}),
        ("'edge' needs .*depth", {'terms': ['edge'], 'intrinsics': pose[:, :3, :3]}),
        ('decay', {'decay': 0.0}),
        ('point_normals: expected', {'point_normals': torch.ones(4, 3)}),
        ('normals are given', {'point_normals': torch.ones(5, 3), 'normal_voxel': 0.1}),
        ('singular', {'camera_extrinsics': pose * torch.tensor([0.0, 0, 0, 1])[:, None]}),
    ):
        with pytest.raises(ValueError, match=message):
            compute_feature_confidence(
                **{'points_3d': points, 'camera_extrinsics': pose, **arguments}
            )


@pytest.mark.parametrize('axis', [(0.0, 0, 1), (0.6, 0, 0.8), (0.48, 0.6, 0.64)])
def test_normals_of_a_noisy_plane(axis):
    normal = torch.tensor(axis, dtype=DOUBLE)
    across = torch.linalg.svd(normal[None])[2][1:]
    points = (4 * torch.rand(4000, 2, dtype=DOUBLE) - 2) @ across
    points = points + 0.003 * torch.randn(4000, 1, dtype=DOUBLE) * normal + 7
    found = estimate_normals(points, 0.1)
    cosine = (found @ normal).abs()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4000, dtype=DOUBLE))
    assert cosine.mean() > 0.999
    assert estimate_normals(points.float(), 0.1).dtype == torch.float32


def test_normals_equal_a_loop_over_voxels():
    points = room_points(400)
    found = estimate_normals(points, 0.4)
    local = points - points.mean(0)
    cell = (local / 0.4).floor()
    for row in range(0, 400, 7):
        near = local[((cell - cell[row]).abs() <= 1).all(1)]
        if len(near) < 4:
            continue
        axes = torch.linalg.svd(near - near.mean(0))[2]
        assert abs(float(axes[2] @ found[row])) == pytest.approx(1, abs=1e-6)


def test_no_normal_without_a_plane():
    line = torch.linspace(0, 1, 50, dtype=DOUBLE)[:, None] * torch.tensor([1.0, 2.0, 0.5])
    assert not estimate_normals(line).any()
    assert not estimate_normals(room_points(2)).any()
    assert not estimate_normals(torch.ones(5, 3)).any()
    assert estimate_normals(torch.zeros(0, 3)).shape == (0, 3)
    with pytest.raises(ValueError, match='voxel_size must be positive'):
        estimate_normals(line, 0.0)
    with pytest.raises(ValueError, match='too small'):
        estimate_normals(1e6 * room_points(10), 1e-9)


def test_estimated_normals_serve_both_sides():
    """A wall seen head-on and from the side, with no normals given."""
    wall = torch.cat((2 * torch.rand(3000, 2, dtype=DOUBLE) - 1, torch.zeros(3000, 1)), 1)
    wall[0] = 0
    poses = torch.eye(4, dtype=DOUBLE).repeat(3, 1, 1)
    poses[:, :3, 3] = torch.tensor([[0.0, 0, 2], [0, 0, -2], [2, 0, 2]])
    found = compute_feature_confidence(wall, poses, terms=['angle'], normal_voxel=0.1)[:, 0]
    expected = torch.tensor([1, 1, math.sqrt(0.5)], dtype=DOUBLE)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_entropy_of_known_distributions():
    p = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 0], [2, 2, 0, 0]])
    assert entropy_confidence(p, logits=False).tolist() == pytest.approx([0, 1, 0.5, 0, 0.5])
    logits = torch.randn(7, 5, dtype=DOUBLE)
    expected = 1 - torch.distributions.Categorical(logits=logits).entropy() / math.log(5)
    torch.testing.assert_close(entropy_confidence(logits), expected)
    torch.testing.assert_close(entropy_confidence(logits.T, dim=0), expected)
    assert entropy_confidence(torch.randn(3, 1)).tolist() == [1, 1, 1]
    large = torch.tensor([[1e4, 0.0], [math.log(3), 0.0]])
    assert entropy_confidence(large)[0] == 1
    with pytest.raises(ValueError, match='at least one class'):
        entropy_confidence(torch.zeros(3, 0))
    assert torch.autograd.gradcheck(entropy_confidence, (logits.requires_grad_(),))


def test_fused_predictions_follow_the_certain_view():
    scores = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.9, 0.1]]])
    weights = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    p, total = fuse_predictions(scores, weights, logits=False)
    torch.testing.assert_close(p, torch.tensor([[0.9, 0.1], [0.0, 0.0]]))
    assert total[1] == 0
    by_hand = 1 + (0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
    assert total[0] == pytest.approx(by_hand, abs=1e-6)
    assert fuse_predictions(scores[:, :0], None, logits=False)[0].tolist() == [[0, 0], [0, 0]]


def test_view_agreement_of_known_directions():
    features = torch.tensor(
        [[[2.0, 0], [5, 0]], [[1, 0], [0, 3]], [[1, 0], [-4, 0]], [[0, 0], [0, 0]]]
    )
    expected = [1, math.sqrt(0.5), 0, 0]
    assert view_agreement(features).tolist() == pytest.approx(expected)
    weights = torch.tensor([[1.0, 1], [1, 0], [3, 1], [1, 1]])
    assert view_agreement(features, weights).tolist() == pytest.approx([1, 1, 0.5, 0])
    assert view_agreement(features[:, :0]).tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match=r'features: expected \(N, V, C\)'):
        view_agreement(features[0])
    with pytest.raises(ValueError, match='weights: expected'):
        view_agreement(features, weights[:2])


def test_vote_agreement_counts_votes():
    scores = torch.tensor([[0.0, 1, 0], [0, 1, 0], [1, 0, 0]]).expand(3, 3, 3)
    weights = torch.tensor([[1.0, 1, 1], [1, 1, 6], [0, 0, 0]])
    labels, share = vote_agreement(scores, weights)
    assert labels.tolist() == [1, 0, -1]
    assert share.tolist() == pytest.approx([2 / 3, 6 / 8, 0])
    assert vote_agreement(scores[:, :0])[0].tolist() == [-1, -1, -1]
