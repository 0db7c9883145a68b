"""Documented CLIP helpers: points to pixels, sampling, geometric encoding, frozen towers."""

import copy
import math
import pickle

import pytest
import torch

from oneformer3d.clip_utils import (
    build_geo_pe,
    build_uv_index,
    build_uv_index_batch,
    freeze_clip_except_last_blocks,
    sample_img_feat,
)
from oneformer3d.lifting import Visibility, visible_mask
from tests.helpers.lifting_scenes import column_row_maps, make_camera, room_depth, room_points


def test_uv_index_by_hand():
    """One metre ahead of a camera at (1, 2, 3) that looks along world x."""
    extrinsics = torch.eye(4)
    extrinsics[:3, :3] = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    extrinsics[:3, 3] = torch.tensor([1.0, 2, 3])
    intrinsics = torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]])
    points = torch.tensor([[2.0, 2, 3], [2, 1.9, 3], [2, 2, 2.9], [0, 2, 3], [2, 0, 3]])
    uv, valid = build_uv_index(points, intrinsics, extrinsics, (48, 64))
    assert valid.tolist() == [True, True, True, False, False]
    expected = torch.tensor([[31.5, 23.5], [41.5, 23.5], [31.5, 33.5]])
    torch.testing.assert_close(uv[:3], expected)
    assert torch.isfinite(uv).all()
    depth = torch.full((48, 64), 1.0)
    depth[:, 40:] = 0.5
    _, valid = build_uv_index(points, intrinsics, extrinsics, (48, 64), depth)
    assert valid.tolist() == [True, False, True, False, False]


def test_uv_index_follows_the_visibility_rule():
    camera, points = make_camera(1)[0], room_points(300)
    depth = room_depth(make_camera(1))[0]
    arguments = (points, camera.intrinsics, camera.world_from_cam, camera.image_size)
    options = {'visibility': Visibility(0.3, abs_tol=0.02, rel_tol=0.0, edge_reject=True)}
    uv, valid = build_uv_index(*arguments, depth, **options)
    expected_uv, z = camera.project(points)
    assert torch.equal(uv, expected_uv)
    assert torch.equal(valid, visible_mask(uv, z, camera.image_size, depth, **options))
    again = build_uv_index(*arguments, depth, **options, byte_budget=1000)
    assert torch.equal(again[1], valid)


@pytest.mark.parametrize('shape', ['cloud, views', 'clouds', 'clouds, views'])
def test_batches_equal_single_calls(shape):
    camera = make_camera(6)
    depth, points = room_depth(camera), room_points(80).reshape(2, 40, 3)
    intrinsics, extrinsics, size = camera.intrinsics, camera.world_from_cam, camera.image_size
    if shape == 'cloud, views':
        points, lead = points[0], (6,)
        pairs = [((i,), points, i) for i in range(6)]
    elif shape == 'clouds':
        intrinsics, extrinsics, depth, lead = intrinsics[:2], extrinsics[:2], depth[:2], (2,)
        pairs = [((i,), points[i], i) for i in range(2)]
    else:
        lead = (2, 3)
        intrinsics, extrinsics = intrinsics.reshape(2, 3, 3, 3), extrinsics.reshape(2, 3, 4, 4)
        depth = depth.reshape(2, 3, 48, 64)
        pairs = [((i, j), points[i], 3 * i + j) for i in range(2) for j in range(3)]
    uv, valid = build_uv_index_batch(points, intrinsics, extrinsics, size, depth)
    assert uv.shape == (*lead, 40, 2)
    for index, cloud, view in pairs:
        single = build_uv_index(
            cloud, camera.intrinsics[view], camera.world_from_cam[view], size, depth[index]
        )
        assert torch.equal(uv[index], single[0])
        assert torch.equal(valid[index], single[1])


def test_uv_index_shapes_are_checked():
    camera, points = make_camera(2), room_points(4)
    with pytest.raises(ValueError, match=r'points: expected \(N, 3\)'):
        build_uv_index(points[None], camera.intrinsics, camera.world_from_cam, (48, 64))
    with pytest.raises(ValueError, match='do not fit cameras'):
        build_uv_index_batch(points[None], torch.eye(3), torch.eye(4), (48, 64))
    uv, valid = build_uv_index(points[:0], torch.eye(3), torch.eye(4), (48, 64))
    assert uv.shape == (0, 2)
    assert valid.shape == (0,)


def test_sample_img_feat():
    ramp = column_row_maps((12, 16), (48, 64))
    uv = torch.tensor([[10.0, 20.0], [40.5, 30.25]], dtype=torch.float64)
    for maps in (ramp, ramp[None]):
        torch.testing.assert_close(sample_img_feat(maps, uv, (48, 64)), uv)
    both = sample_img_feat(ramp.expand(2, 2, 12, 16), torch.stack((uv, uv + 1)), (48, 64))
    torch.testing.assert_close(both, torch.stack((uv, uv + 1)))
    with pytest.raises(ValueError, match='needs one map'):
        sample_img_feat(ramp.expand(2, 2, 12, 16), uv, (48, 64))


def test_geo_pe_by_hand():
    points = torch.tensor([[0.0, 0, 0], [2, 4, 1], [1, 1, 0.5]], dtype=torch.float64)
    extrinsics = torch.eye(4, dtype=torch.float64)[None].repeat(2, 1, 1)
    extrinsics[1, :3, :3] = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    extrinsics[1, :3, 3] = torch.tensor([1.0, 2, 3])
    encoding = build_geo_pe(points, extrinsics, torch.tensor([1, -1, 0]))
    assert encoding.shape == (3, 64)
    for row, point in enumerate(points.tolist()):
        centred = [x - c for x, c in zip(point, (1.0, 2.0, 0.5))]
        waves = [
            [wave(2**k * x) for k in range(8) for x in centred] for wave in (math.sin, math.cos)
        ]
        expected = torch.tensor(centred + waves[0] + waves[1] + [2, 4, 1], dtype=torch.float64)
        torch.testing.assert_close(encoding[row, :54], expected)
    relative = encoding[:, 54:63]
    assert relative[0].tolist() == [1, 2, 3, 0, -1, 0, 0, 0, -1]
    assert relative[1].tolist() == [0] * 9
    assert relative[2].tolist() == [-1, -1, -0.5, 1, 0, 0, 0, 1, 0]
    assert encoding[:, 63].tolist() == [0, 1, 0.5]


def test_geo_pe_moves_with_the_scene():
    points, poses = room_points(20), make_camera(1).world_from_cam
    shift = torch.tensor([3.0, -7.0, 0.5], dtype=torch.float64)
    moved = poses.clone()
    moved[:, :3, 3] += shift
    scaled = poses.clone()
    scaled[:, :3] *= 2.0
    encoding = build_geo_pe(points, poses[0])
    torch.testing.assert_close(build_geo_pe(points + shift, moved), encoding)
    assert torch.equal(build_geo_pe(2 * points, scaled)[:, 57:63], encoding[:, 57:63])


def test_geo_pe_without_cameras_or_points():
    points = room_points(5)
    encoding = build_geo_pe(points)
    assert not encoding[:, 54:63].any()
    unseen = build_geo_pe(points, make_camera(3).world_from_cam, torch.full((5,), -1))
    assert torch.equal(unseen, encoding)
    no_views = build_geo_pe(points, torch.zeros(0, 4, 4), torch.full((5,), -1))
    assert torch.equal(no_views, encoding)
    assert build_geo_pe(points[:0]).shape == (0, 64)
    assert torch.isfinite(build_geo_pe(points[:1])).all()
    with pytest.raises(ValueError, match='need view_of_point'):
        build_geo_pe(points, make_camera(3).world_from_cam)
    with pytest.raises(ValueError, match='points: expected'):
        build_geo_pe(points[:, :2])
    with pytest.raises(ValueError, match='view_of_point: expected'):
        build_geo_pe(points, torch.eye(4), torch.zeros(3, dtype=torch.int64))


def _tower(kind: str) -> torch.nn.Module:
    open_clip = pytest.importorskip('open_clip')
    if kind == 'vit':
        return open_clip.transformer.VisionTransformer(
            image_size=32,
            patch_size=16,
            width=32,
            layers=3,
            heads=2,
            mlp_ratio=2.0,
            patch_dropout=0.5,
            output_dim=16,
        )
    return open_clip.modified_resnet.ModifiedResNet(
        layers=(1, 2, 1, 1), output_dim=16, heads=2, image_size=32, width=8
    )


def _blocks(visual: torch.nn.Module) -> list[torch.nn.Module]:
    if hasattr(visual, 'transformer'):
        return list(visual.transformer.resblocks)
    return [*visual.layer1, *visual.layer2, *visual.layer3, *visual.layer4]


@pytest.mark.parametrize('kind', ['vit', 'resnet'])
@pytest.mark.parametrize('num_train_blocks', [0, 1, 2])
def test_only_the_last_blocks_train(kind, num_train_blocks):
    visual = _tower(kind)
    freeze_clip_except_last_blocks(visual, num_train_blocks)
    model = torch.nn.ModuleDict({'visual': visual}).train()
    trained = _blocks(visual)[len(_blocks(visual)) - num_train_blocks :]
    expected = {id(p) for block in trained for p in block.parameters()}
    assert {id(p) for p in visual.parameters() if p.requires_grad} == expected
    before = {k: v.clone() for k, v in visual.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    output = visual(images)
    inside = {id(m) for block in trained for m in block.modules()}
    around = {id(m) for m in visual.modules() if inside & {id(x) for x in m.modules()}}
    ran = {id(m) for m in visual.modules() if m.training or id(m) in inside}
    assert inside <= ran <= inside | around
    if num_train_blocks:
        output.square().sum().backward()
        torch.optim.SGD([p for p in visual.parameters() if p.requires_grad], lr=1.0).step()
    changed = {k for k, v in visual.state_dict().items() if not torch.equal(v, before[k])}
    names = {name for name, module in visual.named_modules() if module in trained}
    assert all(any(key.startswith(f'{name}.') for name in names) for key in changed)
    assert bool(changed) == bool(num_train_blocks)
    model.eval()
    if not num_train_blocks:
        assert torch.equal(visual(images), output)
    assert not any(m.training for m in visual.modules())


@pytest.mark.parametrize('kind', ['vit', 'resnet'])
def test_frozen_towers_can_be_copied_and_pickled(kind):
    visual = _tower(kind)
    keys = set(visual.state_dict())
    freeze_clip_except_last_blocks(visual, 1)
    assert set(visual.state_dict()) == keys
    for twin in (copy.deepcopy(visual), pickle.loads(pickle.dumps(visual))):
        visual.eval()
        twin.train()
        twin(torch.randn(2, 3, 32, 32))
        assert _blocks(twin)[-1].training
        assert not any(m.training for block in _blocks(twin)[:-1] for m in block.modules())
        assert not any(m.training for m in visual.modules())


def test_freezing_checks_its_arguments():
    with pytest.raises(ValueError, match='between 0 and 3'):
        freeze_clip_except_last_blocks(_tower('vit'), 4)
    with pytest.raises(ValueError, match='between 0 and 5'):
        freeze_clip_except_last_blocks(_tower('resnet'), -1)
    with pytest.raises(TypeError, match='Linear has no residual blocks'):
        freeze_clip_except_last_blocks(torch.nn.Linear(2, 2))
