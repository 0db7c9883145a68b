"""Boxes of queries in views: closed forms, what augmentation must not change, and visibility."""

import math

import pytest
import torch

from oneformer3d.lifting import Camera, PixelPairs, project_pairs
from oneformer3d.stm.boxes import xyxy_from_xyzr
from oneformer3d.stm.view_boxes import encode_boxes, query_boxes, superpoint_views
from oneformer3d.stm.view_mixing import best_views
from oneformer3d.structures import DecoderScene, PosedViews
from tests.helpers.fusion_scenes import IMAGE_SIZE, INTRINSICS, poses

FOCAL = 100.0
K = torch.tensor([[FOCAL, 0, 79.5], [0, FOCAL, 59.5], [0, 0, 1.0]])
SIZE = (120, 160)


def rectangle(width=0.6, height=0.3, depth=2.0, centre=(0.2, -0.1)):
    """Points of an upright rectangle that faces a camera at the origin."""
    x, y = torch.meshgrid(
        torch.linspace(-0.5, 0.5, 61) * width,
        torch.linspace(-0.5, 0.5, 61) * height,
        indexing='ij',
    )
    points = torch.stack((x + centre[0], y + centre[1], torch.full_like(x, depth)), -1)
    return points.reshape(-1, 3)


def scene_of(points, superpoints, world_from_cam, **changes) -> DecoderScene:
    camera = Camera(K.expand(len(world_from_cam), 3, 3), world_from_cam, SIZE)
    views = PosedViews(
        pairs=changes.pop('pairs', project_pairs(points, camera)),
        world_from_cam=world_from_cam,
        image_size=SIZE,
        num_points=len(points),
        intrinsics=K,
        **changes,
    )
    return DecoderScene(points, superpoints, views)


@pytest.mark.parametrize('mode', ['extent', 'pixels'])
def test_a_rectangle_in_front_of_the_camera(mode):
    points = rectangle()
    scene = scene_of(points, torch.zeros(len(points), dtype=torch.int64), torch.eye(4)[None])
    boxes = query_boxes(torch.ones(1, 1), superpoint_views(scene), mode)
    assert boxes.visible.tolist() == [[1.0]]
    u, v = 79.5 + FOCAL * 0.2 / 2, 59.5 - FOCAL * 0.1 / 2
    width, height = FOCAL * 0.6 / 2, FOCAL * 0.3 / 2
    expected = torch.tensor([u, v, math.log2(width * height) / 2, math.log2(height / width)])
    # 61 points from border to border reach 61 / 60 as far as an even distribution
    torch.testing.assert_close(boxes.xyzr[0, 0], expected, rtol=0, atol=0.05)


def test_a_sphere_is_as_large_as_it_looks_wherever_it_is():
    direction = torch.nn.functional.normalize(torch.randn(4000, 3), dim=1)
    points = 0.05 * direction + torch.tensor([0.5, 0.3, 2.5])
    scene = scene_of(points, torch.zeros(4000, dtype=torch.int64), torch.eye(4)[None])
    sums = superpoint_views(scene)
    projected = query_boxes(torch.ones(1, 1), sums, 'extent').xyzr
    measured = query_boxes(torch.ones(1, 1), sums, 'pixels').xyzr
    torch.testing.assert_close(projected, measured, rtol=0, atol=0.05)


def test_weights_join_superpoints():
    left, right = rectangle(centre=(-0.4, 0.0)), rectangle(centre=(0.4, 0.0))
    points = torch.cat((left, right))
    ids = torch.arange(2).repeat_interleave(len(left))
    sums = superpoint_views(scene_of(points, ids, torch.eye(4)[None]))
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [3.0, 1.0]])
    u = query_boxes(weights, sums).xyzr[:, 0, 0]
    expected = 79.5 + FOCAL / 2 * torch.tensor([-0.4, 0.4, 0.0, -0.2])
    torch.testing.assert_close(u, expected, rtol=0, atol=1e-3)
    joined = query_boxes(weights[2:3], sums).xyzr[0, 0]
    single = superpoint_views(scene_of(points, torch.zeros_like(ids), torch.eye(4)[None]))
    expected = query_boxes(torch.ones(1, 1), single).xyzr[0, 0]
    torch.testing.assert_close(joined, expected, rtol=0, atol=1e-3)


def test_what_is_hidden_moves_only_the_pixel_boxes():
    points = rectangle(centre=(0.0, 0.0))
    ids = torch.zeros(len(points), dtype=torch.int64)
    camera = Camera(K[None], torch.eye(4)[None], SIZE)
    pairs = project_pairs(points, camera)
    shown = pairs.select(points[pairs.point, 0] > 0)
    sums = superpoint_views(scene_of(points, ids, torch.eye(4)[None], pairs=shown))
    whole, part = (query_boxes(torch.ones(1, 1), sums, mode) for mode in ('extent', 'pixels'))
    torch.testing.assert_close(whole.visible, torch.tensor([[0.5]]), rtol=0, atol=0.02)
    assert abs(float(whole.xyzr[0, 0, 0]) - 79.5) < 0.01
    assert abs(float(part.xyzr[0, 0, 0]) - (79.5 + FOCAL * 0.15 / 2)) < 0.3


def test_boxes_do_not_change_with_augmentation():
    points = 0.4 * torch.randn(500, 3)
    ids = torch.arange(500) % 7
    turn = torch.linalg.qr(torch.randn(3, 3))[0] @ torch.diag(torch.tensor([1.2, 1.2, -1.2]))
    moved = torch.eye(4)
    moved[:3, :3], moved[:3, 3] = turn, torch.tensor([1.0, -2.0, 0.5])
    camera = Camera(INTRINSICS.expand(3, 3, 3), poses(3), IMAGE_SIZE)
    views = PosedViews(
        pairs=project_pairs(points, camera),
        world_from_cam=camera.world_from_cam,
        image_size=IMAGE_SIZE,
        num_points=500,
        intrinsics=INTRINSICS,
    )
    augmented = PosedViews(**{**vars(views), 'augmented_from_original': moved})
    weights = torch.rand(4, 7)
    plain = query_boxes(weights, superpoint_views(DecoderScene(points, ids, views)))
    points = points @ turn.T + moved[:3, 3]
    again = query_boxes(weights, superpoint_views(DecoderScene(points, ids, augmented)))
    torch.testing.assert_close(again.xyzr, plain.xyzr, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(again.visible, plain.visible)


def test_unseen_queries_have_finite_boxes():
    points = rectangle(depth=-2.0)  # behind the camera
    scene = scene_of(points, torch.zeros(len(points), dtype=torch.int64), torch.eye(4)[None])
    for mode in ('extent', 'pixels'):
        boxes = query_boxes(torch.tensor([[1.0], [0.0]]), superpoint_views(scene), mode)
        assert boxes.visible.tolist() == [[0.0], [0.0]]
        assert torch.isfinite(boxes.xyzr).all()


def test_one_point_has_a_box_of_two_pixels():
    scene = scene_of(torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([0]), torch.eye(4)[None])
    xyzr = query_boxes(torch.ones(1, 1), superpoint_views(scene)).xyzr[0, 0]
    torch.testing.assert_close(xyzr, torch.tensor([79.5, 59.5, 1.0, 0.0]))


def test_the_canvas_is_the_image_resized():
    points = rectangle()
    scene = scene_of(points, torch.zeros(len(points), dtype=torch.int64), torch.eye(4)[None])
    sums = superpoint_views(scene)
    boxes = query_boxes(torch.ones(1, 1), sums)
    same = xyxy_from_xyzr(encode_boxes(boxes, sums, SIZE))
    twice = xyxy_from_xyzr(encode_boxes(boxes, sums, (240, 640)))
    torch.testing.assert_close(twice, same * torch.tensor([4.0, 2.0, 4.0, 2.0]))
    middle = (same[0, 0, 0] + same[0, 0, 2]) / 2
    torch.testing.assert_close(middle, boxes.xyzr[0, 0, 0] + 0.5)


def test_best_views_come_first_and_missing_ones_are_not_valid():
    visible = torch.tensor([[[0.2], [0.0], [0.9]], [[0.0], [0.0], [0.0]]])
    xyzr = torch.arange(24.0).view(2, 3, 1, 4)
    xyzr[..., 2] = 3.0
    views = best_views(visible, xyzr, first_image=5, num_views=4)
    assert views.image[0, :3].tolist() == [7, 5, 6]
    assert views.valid[..., 0].tolist() == [[True, True, False, False], [False] * 4]
    assert torch.equal(views.xyzr[0, 0, 0], xyzr[0, 2, 0])
    xyzr[0, 0, 0, 2] += 4  # near enough to show more, though it sees less of it
    assert best_views(visible, xyzr, 5, 4).image[0, :3].tolist() == [5, 7, 6]
    none = best_views(torch.zeros(2, 0, 1), torch.zeros(2, 0, 1, 4), 0, 4)
    assert not none.valid.any()
    assert none.image.shape == (2, 4)
    xyzr[0, 2] = torch.nan
    with pytest.raises(ValueError, match='not finite'):
        best_views(visible, xyzr, 0, 4)


def test_wrong_input_is_named():
    points = rectangle()
    ids = torch.zeros(len(points), dtype=torch.int64)
    scene = scene_of(points, ids, torch.eye(4)[None])
    sums = superpoint_views(scene)
    with pytest.raises(ValueError, match=r"mode: expected one of .* got 'corners'"):
        query_boxes(torch.ones(1, 1), sums, 'corners')
    with pytest.raises(ValueError, match=r'expected \(Q, S\) with S=1'):
        query_boxes(torch.ones(1, 2), sums)
    with pytest.raises(ValueError, match='finite'):
        query_boxes(torch.full((1, 1), torch.nan), sums)
    with pytest.raises(ValueError, match='superpoints of 5'):
        superpoint_views(DecoderScene(points, ids[:5], scene.views))
    blind = PosedViews(**{**vars(scene.views), 'intrinsics': None})
    with pytest.raises(ValueError, match='no intrinsics'):
        query_boxes(torch.ones(1, 1), superpoint_views(DecoderScene(points, ids, blind)))
    empty = torch.zeros(0, dtype=torch.int64)
    nothing = PixelPairs(empty, empty, torch.zeros(0, 2), torch.zeros(0))
    unseen = superpoint_views(scene_of(points, ids, torch.eye(4)[None], pairs=nothing))
    assert not query_boxes(torch.ones(1, 1), unseen, 'pixels').visible.any()
