"""MVPNet and its first stage: losses, predictions, weights that pass from one to the other."""

import copy

import numpy as np
import pytest
import torch

from oneformer3d.lifting import EfficientFeatureLifting
from oneformer3d.metrics.unified import UnifiedSegMetric
from oneformer3d.mvpnet.image_segmentor import fill_from_nearest
from oneformer3d.mvpnet.segment_scan import segment_scan
from oneformer3d.registry import MODELS
from tests.helpers.fusion_scenes import CHANNELS, INTRINSICS, poses, segmentor_settings, views_of
from tests.helpers.small_models import random_scene
from tests.mvpnet.test_lift_views import image_views

NUM_CLASSES = 5
POINTS = {
    'npoint': (64, 16, 8),
    'radius': (0.3, 0.6, 1.2),
    'sa_channels': ((8, 8), (8, 12), (12, 16)),
    'fp_channels': ((16, 16), (16, 8), (8, 8)),
    'head_channels': 8,
    'dropout': 0.0,
}
IMAGES = {'backbone': 'resnet18', 'channels': 8}
COLOURED = {'point_inputs': ('color', 'height')}


def build(**changes):
    settings = {
        'type': 'MVPNet',
        'num_classes': NUM_CLASSES,
        'image_net': IMAGES,
        'point_processor': POINTS,
        **COLOURED,
        **changes,
    }
    return MODELS.build(settings)


def batch(with_images=True):
    inputs, samples = {'points': [], 'views': []}, []
    for seed, num_views in ((0, 3), (1, 0)):
        points, sample = random_scene(300, seed=seed)
        inputs['points'].append(points)
        views = image_views if with_images else views_of
        inputs['views'].append(views(points, num_views, seed=seed))
        samples.append(sample)
    return inputs, samples


def test_trains_everything():
    model = build().train()
    inputs, samples = batch()
    losses = model.loss(inputs, samples)
    assert set(losses) == {'loss_semantic', 'coverage'}
    assert 0 < losses['coverage'] < 1
    losses['loss_semantic'].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_copy_computes_with_its_own_image_network():
    model = build().eval()
    inputs, samples = batch()
    expected = model.loss(inputs, samples)['loss_semantic']
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.image_net.parameters():
            parameter.zero_()
    assert torch.equal(twin.loss(inputs, samples)['loss_semantic'], expected)
    assert not torch.allclose(model.loss(inputs, samples)['loss_semantic'], expected)


def test_documented_defaults():
    model = MODELS.build({'type': 'FeatureLiftingSegmentation'})
    assert model.num_classes == 20
    assert model.backbone_2d.channels == (256, 512, 1024, 2048)
    assert [x.out_channels for x in model.projectors] == [256] * 4
    assert model.aggregator.attention.num_heads == 8
    assert model.point_processor.in_channels == 256
    assert model.chunk_size == 10000


def test_predicts_every_point_as_the_metric_reads_it():
    model = build(points_per_pass=120).eval()
    inputs, samples = batch()
    predictions = model.predict(inputs, samples)
    metric = UnifiedSegMetric(class_table='synthetic')
    for i, prediction in enumerate(predictions):
        semantic = prediction.pred_pts_seg.pts_semantic_mask[0]
        assert semantic.shape == (300,)
        assert 0 <= semantic.min() <= semantic.max() < NUM_CLASSES
        assert prediction.pts_confidence.min() >= 1 / NUM_CLASSES - 1e-6
        masks = samples[i].gt_pts_seg
        annotations = {
            'pts_semantic_mask': masks.pts_semantic_mask,
            'pts_instance_mask': masks.pts_instance_mask,
        }
        metric.process(
            None, [{'pred_pts_seg': prediction.pred_pts_seg, 'eval_ann_info': annotations}]
        )
    scores = metric.compute_metrics(metric.results)
    assert 0 <= scores['semantic/mIoU'] <= 1
    # the same numbers from logits of one's own
    logits = model(inputs)
    np.testing.assert_array_equal(
        predictions[0].pred_pts_seg.pts_semantic_mask[0], logits[0].argmax(1)
    )


def test_one_pass_sees_all():
    model = build().eval()
    inputs, _ = batch()
    whole = model(inputs)
    model.points_per_pass = 1000
    for a, b in zip(whole, model(inputs)):
        torch.testing.assert_close(a, b)
    model.points_per_pass = 100
    assert not torch.allclose(whole[0], model(inputs)[0])


def test_learns_what_only_images_tell():
    """Two classes at random places; the colour of the images says which."""
    torch.manual_seed(0)
    points, sample = random_scene(300)
    points[:, 3:] = 0
    bright = points[:, 0] > 0
    views = views_of(points, 4, feat=torch.zeros(4, 2, 30, 40))
    feat = torch.zeros(4, 2, 30, 40)
    u, v = (views.pairs.uv + 0.5).long().unbind(1)
    feat[views.pairs.view, 0, v, u] = bright[views.pairs.point].float()
    feat[views.pairs.view, 1, v, u] = (~bright[views.pairs.point]).float()
    views = views_of(points, 4, feat=feat)
    sample.gt_pts_seg.pts_semantic_mask = bright.long()

    model = build(image_net=None, clip_channels=2, aggregator='mean', point_inputs=())
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    inputs = {'points': [points], 'views': [views]}

    losses = []
    for _ in range(25):
        loss = model.train().loss(inputs, [sample])['loss_semantic']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.5 * losses[0]


def test_points_alone():
    model = build(use_images=False)
    assert model.image_net is None
    assert model.backbone_2d is None
    inputs, samples = batch()
    losses = model.loss(inputs, samples)
    assert set(losses) == {'loss_semantic'}
    model.eval()
    torch.testing.assert_close(model(inputs)[0], model({'points': inputs['points']})[0])


def test_some_points_train():
    model = build(num_train_points=50)
    inputs, samples = batch()
    seen = []
    model.point_processor.register_forward_pre_hook(lambda _, x: seen.append(x[2]))
    losses = model.loss(inputs, samples)
    assert seen == [[50, 50]]
    assert torch.isfinite(losses['loss_semantic'])


def test_nothing_labeled():
    model = build()
    inputs, samples = batch()
    for sample in samples:
        sample.gt_pts_seg.pts_semantic_mask[:] = NUM_CLASSES
    loss = model.loss(inputs, samples)['loss_semantic']
    assert loss == 0
    loss.backward()


@pytest.mark.parametrize('aggregator', ['max', {'type': 'learnable', 'num_views': 8}, 'gated'])
def test_stored_maps(aggregator):
    model = build(image_net=None, clip_channels=CHANNELS, aggregator=aggregator)
    inputs, samples = batch(with_images=False)
    loss = model.loss(inputs, samples)['loss_semantic']
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_concat_of_all_scales():
    model = build(image_net={'backbone': 'resnet18', 'fuse': 'concat'}, aggregator='mean').eval()
    assert model.projectors is None
    inputs, _ = batch()
    assert model(inputs)[0].shape == (300, NUM_CLASSES)


def test_frozen_keeps_its_weights_and_maps():
    model = build(image_net={**IMAGES, 'frozen': True}).train()
    inputs, samples = batch()
    model.loss(inputs, samples)['loss_semantic'].backward()
    assert all(p.grad is None for p in model.image_net.parameters())
    assert not model.image_net.training
    assert len(model._maps_of.memory) == 3


@pytest.mark.parametrize(
    'changes',
    [
        {'max_views': None},
        {'max_views': 1, 'aggregator': 'mean'},
        {'max_views': 2, 'aggregator': {'type': 'learnable', 'num_views': 2}},
        {'distance_decay': 0.5, 'normal_voxel': 0.3, 'aggregator': 'confidence'},
    ],
)
def test_large_clouds_give_the_same(changes):
    """Chunked lifting of ``EfficientFeatureLifting`` and this network's own."""
    model = build(point_inputs=('height',), **changes).eval()
    points, _ = random_scene(300)
    images = torch.rand(3, 3, 32, 64)
    intrinsics = INTRINSICS.clone()
    cameras = [(intrinsics, pose) for pose in poses(3)]
    lifting = EfficientFeatureLifting(chunk_size=70)
    labels = lifting.process_large_pointcloud(points[:, :3], model, cameras, list(images))
    scan = segment_scan({'pos': points[:, :3]}, images, cameras, model, occlusion='none')
    assert (labels == scan['labels']).float().mean() > 0.99


def test_first_stage_starts_the_second():
    first = MODELS.build({'type': 'MVPNet2D', 'num_classes': NUM_CLASSES, 'image_net': IMAGES})
    second = build()
    found = second.load_state_dict(first.state_dict(), strict=False)
    assert sorted(found.unexpected_keys) == [
        'image_net.classifier_2d.bias',
        'image_net.classifier_2d.weight',
    ]
    assert not [key for key in found.missing_keys if key.startswith('image_net.')]
    settings = segmentor_settings()
    encoder = settings['encoder']
    settings['encoder'] = {
        'type': 'LiftingEncoder',
        'encoder_3d': {**encoder['encoder_3d'], 'in_channels': 6 + 4},
        'image_net': IMAGES,
        'lifted_channels': 4,
    }
    segmentor = MODELS.build(settings)
    found = segmentor.load_state_dict(first.state_dict(), strict=False)
    assert not [key for key in found.missing_keys if 'image_net' in key]


def test_first_stage_trains_on_pictures():
    torch.manual_seed(0)
    model = MODELS.build({'type': 'MVPNet2D', 'num_classes': 3, 'image_net': IMAGES}).train()
    labels = (torch.arange(64) // 22).expand(2, 48, 64).contiguous()
    images = (labels[:, None] * 100).expand(2, 3, 48, 64).to(torch.uint8)
    inputs = {'view_images': [images], 'view_labels': [labels]}
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    losses = []
    for _ in range(12):
        result = model.loss(inputs)
        optimizer.zero_grad()
        result['loss_pixels'].backward()
        optimizer.step()
        losses.append(result['loss_pixels'].item())
    assert losses[-1] < 0.5 * losses[0]
    assert result['pixel_accuracy'] > 0.8
    assert model(inputs).shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match='view_labels: expected'):
        model.loss({'view_images': [images], 'view_labels': [labels[:, 1:]]})


@pytest.mark.parametrize('vote', ['soft', 'hard', 'entropy'])
def test_votes(vote):
    """Where all views say the same of a pixel, points take it; the rest is carried over."""
    model = MODELS.build(
        {'type': 'MVPNet2D', 'num_classes': 3, 'image_net': IMAGES, 'vote': vote}
    ).eval()
    with torch.no_grad():
        model.image_net.classifier_2d.weight.zero_()
        model.image_net.classifier_2d.bias.copy_(torch.tensor([0.0, 3.0, 1.0]))
    points, sample = random_scene(300)
    views = image_views(points)
    votes = model.vote_points(points[:, :3], views)
    torch.testing.assert_close(votes.sum(1), torch.ones(300))
    assert (votes.argmax(1) == 1).all()
    if vote == 'soft':
        expected = torch.tensor([0.0, 3.0, 1.0]).softmax(0).expand(300, 3)
        torch.testing.assert_close(votes, expected)
    assert (model.vote_points(points[:, :3], None) == 1 / 3).all()
    (prediction,) = model.predict({'points': [points], 'views': [views]}, [sample])
    assert (prediction.pred_pts_seg.pts_semantic_mask[0] == 1).all()


def test_unseen_points_take_the_nearest():
    xyz = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1.2, 0, 0], [-0.1, 0, 0]])
    values = torch.tensor([[1.0], [2.0], [0.0], [0.0]])
    seen = torch.tensor([True, True, False, False])
    assert fill_from_nearest(values, seen, xyz)[:, 0].tolist() == [1, 2, 2, 1]
    assert fill_from_nearest(values, ~seen & False, xyz) is values


@pytest.mark.parametrize('mode', ['concat', 'add'])
def test_segmentor_with_lifted_features(mode):
    settings = segmentor_settings()
    plain = settings['encoder']['encoder_3d']
    settings['encoder'] = {
        'type': 'LiftingEncoder',
        'encoder_3d': {**plain, 'in_channels': 6 + (4 if mode == 'concat' else 0)},
        'image_net': IMAGES,
        'mode': mode,
        **({'lifted_channels': 4} if mode == 'concat' else {'point_channels': 4}),
    }

    torch.manual_seed(0)
    segmentor = MODELS.build(settings).train()
    inputs, samples = batch()
    losses = segmentor.loss(inputs, samples)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert segmentor.encoder.out.weight.grad.abs().sum() > 0
    assert segmentor.encoder.image_net.projectors[0].weight.grad is not None

    segmentor.eval()
    base = segmentor.encoder(inputs).features
    if mode == 'add':  # starts as the network of points
        alone = segmentor.encoder.points_3d(inputs).features
        torch.testing.assert_close(base, alone)
    prediction = segmentor.predict(inputs, samples)[0].pred_pts_seg
    assert prediction.pts_semantic_mask[0].shape == (300,)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'clip_channels': 4}, 'without image_net'),
        ({'map_store': 'somewhere'}, 'frozen'),
        ({'point_inputs': ('normal',)}, 'point_inputs'),
        ({'use_images': False, 'point_inputs': ()}, 'images or point_inputs'),
        ({'points_per_pass': 0}, 'points_per_pass must be positive'),
        ({'aggregator': 'best'}, 'aggregator'),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_bad_input():
    model = build()
    inputs, samples = batch()
    del samples[0].gt_pts_seg.pts_semantic_mask
    with pytest.raises(ValueError, match='no pts_semantic_mask'):
        model.loss(inputs, samples)
    with pytest.raises(ValueError, match='mode'):
        model(inputs, mode='train')
    with pytest.raises(ValueError, match='reads colours'):
        model.classify_points(torch.rand(4, 3), torch.rand(4, 8))
    with pytest.raises(ValueError, match='does not divide'):
        model.extract_maps(torch.rand(1, 3, 30, 40))
    with pytest.raises(ValueError, match='vote'):
        MODELS.build({'type': 'MVPNet2D', 'image_net': IMAGES, 'vote': 'loud'})
    for changes in ({'mode': 'times'}, {'mode': 'add'}):
        with pytest.raises(ValueError, match='mode'):
            MODELS.build(
                {'type': 'LiftingEncoder', 'encoder_3d': {}, 'image_net': IMAGES, **changes}
            )
