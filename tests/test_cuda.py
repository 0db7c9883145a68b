"""Every part on a GPU against itself on the CPU: outputs, gradients, and half precision.

Differences are measured as ‖gpu − cpu‖ / ‖cpu‖. Parts with a test of this kind of their own:
voxels, sparse convolution, sampling of maps, hash grid.
"""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oneformer3d.backbones.pointnet2 import Point3DProcessor
from oneformer3d.fields import UniformSampler, render_rays
from oneformer3d.fields.rendering.rays import Rays
from oneformer3d.fusion.tiny_sa import TinySANeck
from oneformer3d.lifting import lift_features_to_points
from oneformer3d.registry import MODELS
from tests.fields.rendering.test_render import small_field
from tests.fusion.test_tiny_sa import surface
from tests.helpers.analytic_fields import random_rays
from tests.helpers.bi_fusion_models import CLIP, build_segmentor, opened
from tests.helpers.fusion_scenes import (
    CHANNELS,
    IMAGE_SIZE,
    INTRINSICS,
    batch,
    encoder_settings,
    poses,
    scene,
)
from tests.helpers.small_clips import small_encoder
from tests.helpers.small_models import small_s3dis_settings, small_settings
from tests.helpers.stm_scenes import fused_segmentor, open_gates, posed_scene, stm_segmentor
from tests.mvpnet.test_segmentor import POINTS
from tests.mvpnet.test_segmentor import batch as image_batch
from tests.mvpnet.test_segmentor import build as build_mvpnet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device'),
]
TOLERANCE = 1e-3
NUM_CLASSES = 5


def assert_near(got: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    got, expected = got.detach().double().cpu(), expected.detach().double().cpu()
    assert got.shape == expected.shape
    assert torch.isfinite(got).all()
    assert (got - expected).norm() <= tolerance * expected.norm() + 1e-9


def results(model: nn.Module, inputs, samples, device: str) -> dict[str, Tensor]:
    """Logits of a segmentor and the gradients of their mean square."""
    model = copy.deepcopy(model).to(device)
    data = model.data_preprocessor({'inputs': inputs, 'data_samples': samples})
    output = model(data['inputs'], data['data_samples'], mode='tensor')
    found = {
        f'{name}.{i}': value
        for name in ('cls_preds', 'masks')
        for i, value in enumerate(output[name])
    }
    sum(value.square().mean() for value in found.values()).backward()
    found |= {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach().cpu() for name, value in found.items()}


SEGMENTORS = {
    'points': lambda: MODELS.build(small_settings()),
    'learned queries': lambda: MODELS.build(small_s3dis_settings()),
    'residual': lambda: opened(build_segmentor(mode='residual')),
    'concat': lambda: opened(build_segmentor(mode='concat', use_tiny_sa_2d=True)),
    'gate': lambda: opened(build_segmentor(mode='gate')),
    'default': lambda: opened(
        build_segmentor(mode='concat', train_without_views=True, point_semantic={'num_classes': 5})
    ),
    'stm': lambda: open_gates(stm_segmentor()),
    'fusion and stm': lambda: open_gates(opened(fused_segmentor())),
}


@pytest.mark.parametrize('name', SEGMENTORS)
def test_segmentor_gives_the_same_logits_and_gradients(name):
    model = SEGMENTORS[name]().eval()
    inputs, samples = batch(posed_scene(0), posed_scene(1, num_views=0))
    expected = results(model, inputs, samples, 'cpu')
    got = results(model, inputs, samples, 'cuda')
    assert got.keys() == expected.keys()
    largest = max(value.norm() for value in expected.values())
    for key, value in expected.items():
        # a gradient that should be zero is rounding alone
        if value.norm() > 1e-6 * largest:
            assert_near(got[key], value, 5 * TOLERANCE)


@pytest.mark.parametrize('name', ['points', 'concat', 'stm'])
def test_segmentor_predicts_the_same(name):
    model = SEGMENTORS[name]().eval()
    inputs, samples = batch(posed_scene(0), posed_scene(1))
    predictions = []
    for device in ('cpu', 'cuda'):
        there = copy.deepcopy(model).to(device)
        data = there.data_preprocessor({'inputs': inputs, 'data_samples': samples})
        predictions.append(there.predict(data['inputs'], data['data_samples']))
    for cpu, gpu in zip(*predictions):
        for mask, twin in zip(
            cpu.pred_pts_seg.pts_semantic_mask, gpu.pred_pts_seg.pts_semantic_mask
        ):
            assert (np.asarray(mask) == np.asarray(twin)).mean() > 0.99
        scores = [np.sort(x.pred_pts_seg.instance_scores) for x in (cpu, gpu)]
        assert np.allclose(*scores, atol=1e-3)


@pytest.mark.parametrize('name', ['points', 'concat', 'default', 'gate', 'stm', 'fusion and stm'])
def test_half_precision_trains(name):
    model = SEGMENTORS[name]().train()
    model.query_thr = 1.0
    inputs, samples = batch(posed_scene(0), posed_scene(1))
    losses = {}
    for half in (False, True):
        there = copy.deepcopy(model).cuda()
        data = there.data_preprocessor({'inputs': inputs, 'data_samples': samples})
        scaler = torch.amp.GradScaler('cuda', init_scale=64.0, enabled=half)
        with torch.autocast('cuda', dtype=torch.float16, enabled=half):
            total, _ = there.parse_losses(there.loss(data['inputs'], data['data_samples']))
        scaler.scale(total).backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in there.parameters())
        losses[half] = total
    assert_near(losses[True], losses[False], 0.05)


def test_online_clip_gives_the_same_fused_features():
    settings = encoder_settings(mode='gate', offline_clip_feat=False, clip=CLIP)
    model = MODELS.build(settings).eval()
    points, _, _ = scene()
    images = torch.rand(3, 3, *IMAGE_SIZE)
    camera = (INTRINSICS, poses(3))
    fused = {}
    for device in ('cpu', 'cuda'):
        there = copy.deepcopy(model).to(device)
        with torch.no_grad():
            (sample,) = there(
                [points.to(device)],
                [images.to(device)],
                [camera[0].to(device)],
                [camera[1].to(device)],
            )
        fused[device] = sample['feat_fusion']
    assert_near(fused['cuda'], fused['cpu'], 0.02)  # the image branch is in half precision there


def test_mvpnet_gives_the_same_loss_and_gradients():
    model = build_mvpnet().eval()
    inputs, samples = image_batch()
    found = {}
    for device in ('cpu', 'cuda'):
        there = copy.deepcopy(model).to(device)
        data = there.data_preprocessor({'inputs': inputs, 'data_samples': samples})
        loss = there.loss(data['inputs'], data['data_samples'])['loss_semantic']
        loss.backward()
        found[device] = [loss, *(p.grad for p in there.parameters() if p.grad is not None)]
    for got, expected in zip(found['cuda'], found['cpu']):
        assert_near(got, expected, 0.02)  # cuDNN's convolutions in TF32


def test_lifting_gives_the_same_features_visibility_and_gradients():
    points, _, _ = scene(num_points=2000)
    maps = {'a': torch.randn(3, CHANNELS, 15, 20), 'b': torch.randn(3, 5, 4, 5)}
    depth = torch.rand(3, *IMAGE_SIZE) * 3
    found = {}
    for device in ('cpu', 'cuda'):
        leaves = {name: value.clone().to(device).requires_grad_() for name, value in maps.items()}
        features, visible = lift_features_to_points(
            points[:, :3].to(device),
            leaves,
            INTRINSICS.expand(3, 3, 3).to(device),
            poses(3).to(device),
            IMAGE_SIZE,
            depth.to(device),
        )
        features.square().sum().backward()
        found[device] = [features, visible.float(), *(leaf.grad for leaf in leaves.values())]
    assert found['cpu'][1].any()
    assert (found['cpu'][1] != found['cuda'][1].cpu()).float().mean() < 1e-3
    for got, expected in zip(found['cuda'], found['cpu']):
        assert_near(got, expected, 0.03)  # a pair at the edge of visibility may differ


@pytest.mark.parametrize('part', ['tiny_sa', 'pointnet2'])
def test_neighbourhood_networks_give_the_same(part):
    xyz = torch.cat((surface(500), surface(300, seed=1)))
    features = torch.randn(800, 8)
    net = TinySANeck(8) if part == 'tiny_sa' else Point3DProcessor(8, NUM_CLASSES, **POINTS)
    net.eval()
    found = {}
    for device in ('cpu', 'cuda'):
        there, leaf = copy.deepcopy(net).to(device), features.clone().to(device).requires_grad_()
        result = there(leaf, xyz.to(device), (500, 300))
        result.square().mean().backward()
        found[device] = [result, leaf.grad]
    for got, expected in zip(found['cuda'], found['cpu']):
        assert_near(got, expected)


def test_clip_gives_the_same_maps():
    encoder = small_encoder()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = encoder(images)
        got = copy.deepcopy(encoder).cuda()(images.cuda())
    for a, b in zip(got, expected):
        if torch.is_tensor(b):
            assert_near(a, b)


def test_field_renders_the_same():
    field = small_field()
    rays = random_rays(64)
    found = {}
    for device in ('cpu', 'cuda'):
        there = copy.deepcopy(field).to(device)
        rays = Rays(*(value.to(device) for value in vars(rays).values()))
        rendered = render_rays(there, rays, UniformSampler(32), perturb=False)
        rendered.heads['rgb'].square().mean().backward()
        found[device] = [rendered.heads['rgb'], rendered.depth]
        found[device] += [p.grad for p in there.parameters() if p.grad is not None]
    assert len(found['cpu']) > 3
    for got, expected in zip(found['cuda'], found['cpu']):
        assert_near(got, expected, 5 * TOLERANCE)
