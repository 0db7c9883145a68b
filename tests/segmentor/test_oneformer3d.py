"""The segmentor as a pipeline, with an encoder of points put in its place by configuration."""

import copy

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.runner.checkpoint import get_state_dict
from mmengine.runner.checkpoint import load_state_dict as load_state_dict_by_name
from torch import nn

from oneformer3d.backbones.voxelize import voxelize
from oneformer3d.data.class_tables import ClassTable
from oneformer3d.metrics.unified import UnifiedSegMetric
from oneformer3d.registry import MODELS
from oneformer3d.segmentor.published import _class_settings
from oneformer3d.structures import PointEncoder, PointFeatures
from tests.helpers.small_models import random_scene, small_s3dis_settings, small_settings


@MODELS.register_module(force=True)
class PointwiseTestEncoder(PointEncoder):
    """A linear layer on every point; ``bias`` is a parameter of its own, beside its children."""

    def __init__(self, in_channels: int = 6, out_channels: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, inputs, data_samples=None):
        points = inputs['points']
        grid = voxelize(points, points, 0.5)
        features = self.linear(torch.cat(points)) + self.bias
        return PointFeatures(features, grid.voxel_of_point, grid.num_points)


def with_test_encoder(settings, width=4, **changes):
    """Settings of a ``OneFormer3D`` around the encoder of this file, of ``width`` channels."""
    classes = _class_settings(
        settings['decoder'],
        settings['criterion'],
        settings['num_classes'],
        settings.pop('test_cfg'),
    )
    settings['decoder'].update(in_channels=width, d_model=4 * width)
    return {
        'type': 'OneFormer3D',
        'encoder': {'type': 'PointwiseTestEncoder', 'out_channels': width},
        **{k: settings[k] for k in ('decoder', 'criterion', 'data_preprocessor')},
        **classes,
        **changes,
    }


def build(**changes):
    return MODELS.build(with_test_encoder(small_settings(), **changes))


def build_s3dis(**changes):
    return MODELS.build(with_test_encoder(small_s3dis_settings(), use_superpoints=False, **changes))


def batch(*scenes):
    points, samples = zip(*scenes)
    return {'points': list(points)}, list(samples)


def assert_trains(model, inputs, samples):
    """One backward pass with finite losses and gradients, and every parameter reached."""
    losses = model(inputs, samples, mode='loss')
    assert set(losses) == {'inst_loss', 'seg_loss'}
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def assert_prediction_shapes(predictions, inputs, num_classes=5):
    for sample, points in zip(predictions, inputs['points']):
        prediction, num_points = sample.pred_pts_seg, len(points)
        num_instances = len(prediction.instance_labels)
        assert [x.shape for x in prediction.pts_semantic_mask] == [(num_points,)] * 2
        assert prediction.pts_instance_mask[0].shape == (num_instances, num_points)
        assert prediction.pts_instance_mask[0].dtype == bool
        assert prediction.pts_instance_mask[1].shape == (num_points,)
        assert prediction.instance_scores.shape == (num_instances,)
        for labels in prediction.pts_semantic_mask:
            assert labels.min() >= 0
            assert labels.max() < num_classes


@pytest.mark.parametrize('make', [build, build_s3dis])
def test_trains_and_predicts(make):
    model = make()
    inputs, samples = batch(random_scene(), random_scene(150, 7, seed=1))
    assert_trains(model, inputs, samples)
    assert_prediction_shapes(model.eval()(inputs, samples, mode='predict'), inputs)


@pytest.mark.parametrize('make', [build, build_s3dis])
def test_learns_one_scene(make):
    """Superpoints told apart by a one-hot feature are memorised."""
    encoder = {'type': 'PointwiseTestEncoder', 'in_channels': 15, 'out_channels': 16}
    model = make(width=16, encoder=encoder)
    model.criterion.sem_criterion.loss_weight = 5.0
    points, sample = random_scene(120, 12)
    superpoints = sample.gt_pts_seg.sp_pts_mask
    # Each superpoint fills one voxel, so that S3DIS settings see the same groups.
    position = superpoints[:, None].float() + torch.tensor([0.25, 0.25, 0.25])
    points = torch.cat([position, torch.eye(12)[superpoints]], dim=1)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(100):
        total, _ = model.parse_losses(model.loss({'points': [points]}, [sample]))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < 0.3 * losses[0]
    prediction = model.eval().predict({'points': [points]}, [sample])[0].pred_pts_seg
    truth = sample.gt_pts_seg.pts_semantic_mask.numpy()
    labeled = truth < 5
    assert (prediction.pts_semantic_mask[0] == truth)[labeled].mean() > 0.9
    instance = sample.gt_pts_seg.pts_instance_mask.numpy()
    best = {mask.tobytes() for mask in prediction.pts_instance_mask[0][:3]}
    assert best == {(instance == k).tobytes() for k in range(3)}


def test_ground_truth_is_not_written_to():
    inputs, samples = batch(random_scene())
    before = copy.deepcopy(samples[0].gt_pts_seg)
    model = build()
    model.loss(inputs, samples)
    predictions = model.eval().predict(inputs, samples)
    for name, value in before.items():
        assert torch.equal(samples[0].gt_pts_seg[name], value)
    assert 'pred_pts_seg' not in samples[0]
    assert 'pred_pts_seg' in predictions[0]
    assert predictions[0].scene_id == 'random_0'


@pytest.mark.parametrize('make', [build, build_s3dis])
@pytest.mark.parametrize(('num_points', 'num_superpoints'), [(1, 1), (40, 1), (2, 2)])
def test_one_point_and_one_superpoint(make, num_points, num_superpoints):
    model = make()
    inputs, samples = batch(random_scene(num_points, num_superpoints))
    assert_trains(model, inputs, samples)
    assert_prediction_shapes(model.eval().predict(inputs, samples), inputs)


@pytest.mark.parametrize('make', [build, build_s3dis])
def test_no_instances_in_the_scene(make):
    model = make()
    inputs, samples = batch(random_scene(num_instances=0), random_scene(seed=1))
    assert_trains(model, inputs, samples)
    assert_trains(make(), *batch(random_scene(num_instances=0)))


@pytest.mark.parametrize('make', [build, build_s3dis])
def test_no_instance_predicted(make):
    test_cfg = {'inst_score_thr': 2.0, 'pan_score_thr': 2.0}
    model = make(test_cfg=test_cfg).eval()
    inputs, samples = batch(random_scene())
    prediction = model.predict(inputs, samples)[0].pred_pts_seg
    assert prediction.pts_instance_mask[0].shape == (0, 400)
    assert set(prediction.pts_instance_mask[1].tolist()) <= set(model.stuff_classes)


def test_a_prediction_does_not_depend_on_its_batch():
    model = build().eval()
    scenes = [random_scene(), random_scene(150, 7, seed=1)]
    together = model.predict(*batch(*scenes))
    for scene, expected in zip(scenes, together):
        alone = model.predict(*batch(scene))[0].pred_pts_seg
        np.testing.assert_array_equal(
            alone.pts_semantic_mask[0], expected.pred_pts_seg.pts_semantic_mask[0]
        )
        np.testing.assert_allclose(
            alone.instance_scores, expected.pred_pts_seg.instance_scores, rtol=1e-4
        )


def test_s3dis_thing_ids_never_collide_with_stuff():
    model = build_s3dis(test_cfg={'pan_score_thr': 0.0, 'npoint_thr': 0}).eval()
    with torch.no_grad():
        # The classes of things win over "no object" and over stuff.
        model.decoder.out_cls[2].bias[1:4] += 20
        model.decoder.out_score[2].bias += 5
    prediction = model.predict(*batch(random_scene()))[0].pred_pts_seg
    semantic, ids = prediction.pts_semantic_mask[1], prediction.pts_instance_mask[1]
    is_stuff = np.isin(semantic, model.stuff_classes)
    assert not is_stuff.all()
    assert (ids[is_stuff] == semantic[is_stuff]).all()
    assert (ids[~is_stuff] > max(model.stuff_classes)).all()
    for thing in np.unique(ids[~is_stuff]):
        assert len(np.unique(semantic[ids == thing])) == 1


def settings_of_classes(num_things: int) -> dict:
    """Five semantic classes, of which the last ``num_things`` have instances."""
    settings = small_settings(num_classes=num_things)
    settings['decoder']['num_instance_classes'] = num_things
    settings['criterion']['inst_criterion']['num_classes'] = num_things
    settings['test_cfg'].update(
        stuff_classes=list(range(5 - num_things)), pan_score_thr=0.0, npoint_thr=0
    )
    return settings


@pytest.mark.parametrize('num_things', [0, 5])
def test_models_of_stuff_or_of_things_alone(num_things):
    model = MODELS.build(with_test_encoder(settings_of_classes(num_things)))
    inputs, samples = batch(random_scene(), random_scene(seed=1))
    assert_trains(model, inputs, samples)

    table = ClassTable(
        name='alone',
        classes=tuple('abcde'),
        raw_ids=tuple(range(1, 6)),
        stuff=model.stuff_classes,
        instance_classes=model.instance_classes,
        palette=np.zeros((5, 3), np.uint8),
    )
    metric = UnifiedSegMetric(table, min_region_size=1)
    for sample in model.eval().predict(inputs, samples):
        predicted = sample.pred_pts_seg
        (semantic, panoptic_semantic), (masks, ids) = (
            predicted.pts_semantic_mask,
            predicted.pts_instance_mask,
        )
        if num_things == 0:
            assert len(masks) == 0
            assert (ids == semantic).all()
        else:  # a point outside of every instance has its best class, and no segment
            assert ((ids >= 0) == masks.any(0)).all()
            assert (panoptic_semantic[ids < 0] == semantic[ids < 0]).all()

        truth = {k: v.numpy() for k, v in sample.gt_pts_seg.items() if k != 'sp_pts_mask'}
        metric.process(None, [{'pred_pts_seg': predicted, 'eval_ann_info': truth}])

    scores = metric.compute_metrics(metric.results)
    assert np.isnan(scores['instance/AP']) == (num_things == 0)
    assert np.isnan(scores['panoptic/PQ_stuff']) == (num_things == 5)
    assert np.isfinite([scores['panoptic/PQ'], scores['semantic/mIoU']]).all()


def test_s3dis_predicts_without_data_samples():
    model = build_s3dis().eval()
    points, _ = random_scene()
    prediction = model.predict({'points': [points]})
    assert isinstance(prediction[0], Det3DDataSample)


@pytest.mark.parametrize('make', [build, build_s3dis])
def test_bfloat16_autocast(make):
    model = make()
    inputs, samples = batch(random_scene())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(inputs, samples)
        predictions = model.predict(inputs, samples)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    assert_prediction_shapes(predictions, inputs)


def test_queries_are_a_random_share_of_superpoints():
    model = build(query_thr=0.5)
    features = [torch.arange(100.0)[:, None]]
    targets = model.build_targets(*_targets_of(random_scene(400, 100)))
    counts = set()
    for _ in range(30):
        queries, chosen = model.select_queries(features, targets)
        ids = queries[0][:, 0].long()
        assert len(ids) == len(ids.unique())
        assert torch.equal(chosen[0].query_masks, targets[0].sp_masks[:, ids])
        counts.add(len(ids))
    assert min(counts) >= 50
    assert max(counts) <= 100
    assert len(counts) > 5
    model.query_thr = 1.0
    assert len(model.select_queries(features, targets)[0][0]) == 100


def _targets_of(scene):
    return [scene[1].gt_pts_seg.sp_pts_mask], [scene[1]]


def test_state_dict_has_no_encoder_prefix_and_round_trips():
    model, other = build(), build()
    names = set(model.state_dict())
    assert {'linear.weight', 'linear.bias', 'bias', 'decoder.out_norm.bias'} <= names
    assert not any(name.startswith('encoder.') for name in names)
    assert set(get_state_dict(model)) == names
    wrapped = nn.Sequential(model)
    assert set(wrapped.state_dict()) == {'0.' + name for name in names}
    other.load_state_dict(model.state_dict(), strict=True)
    third = build()
    load_state_dict_by_name(third, model.state_dict(), strict=True)
    fourth = nn.Sequential(build())
    fourth.load_state_dict(wrapped.state_dict(), strict=True)
    for loaded in (other, third, fourth[0]):
        for a, b in zip(model.parameters(), loaded.parameters()):
            assert torch.equal(a, b)
    weights = model.state_dict()
    weights['strange.weight'] = weights.pop('linear.weight')
    with pytest.raises(RuntimeError, match=r'"strange.weight"'):
        other.load_state_dict(weights)


def test_missing_superpoints_and_labels_are_reported():
    model = build()
    points, sample = random_scene()
    with pytest.raises(ValueError, match=r'sample 0: expected gt_pts_seg.sp_pts_mask with 400'):
        model.predict({'points': [points]})
    short = sample.new()
    short.gt_pts_seg = sample.gt_pts_seg.new()
    short.gt_pts_seg.sp_pts_mask = sample.gt_pts_seg.sp_pts_mask[:-1]
    with pytest.raises(ValueError, match='got 399'):
        model.predict({'points': [points]}, [short])
    unlabeled = sample.new()
    unlabeled.gt_pts_seg = sample.gt_pts_seg.new()
    del unlabeled.gt_pts_seg.pts_instance_mask
    with pytest.raises(ValueError, match='sample 0: gt_pts_seg has no pts_instance_mask'):
        model.loss({'points': [points]}, [unlabeled])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'test_cfg': {'topk': 3}}, r"test_cfg: unknown keys \['topk'\]"),
        ({'train_cfg': {'a': 3}}, r"train_cfg: unknown keys \['a'\]"),
        ({'query_thr': 1.5}, 'query_thr'),
        ({'stuff_classes': []}, 'the decoder predicts 3 instance classes, but 5'),
        ({'stuff_classes': [0, 7]}, r'0…4, got \(0, 7\)'),
        ({'stuff_classes': [0]}, 'the decoder predicts 3 instance classes, but 4'),
        ({'instance_classes': [1, 2]}, 'the decoder predicts 3 instance classes, but 2'),
        ({'unknown': 1}, 'unknown'),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build(**changes)


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match='mode'):
        build()({'points': []}, mode='train')


@MODELS.register_module(force=True)
class PlainTestModule(nn.Linear):
    """Neither an encoder nor a decoder by its class."""

    num_instance_classes = 3
    num_semantic_queries = 0


@pytest.mark.parametrize(
    ('part', 'base'), [('encoder', 'PointEncoder'), ('decoder', 'MaskDecoder')]
)
def test_parts_of_other_classes_are_refused(part, base):
    plain = {'type': 'PlainTestModule', 'in_features': 1, 'out_features': 1}
    with pytest.raises(TypeError, match=f'PlainTestModule: .*structures.{base}'):
        build(**{part: plain})


def test_auxiliary_losses_get_the_iteration(monkeypatch):
    model = build()
    heard = []
    monkeypatch.setattr(
        model.encoder,
        'auxiliary_losses',
        lambda points, samples, iteration: heard.append(iteration) or {'extra': torch.ones(())},
    )
    inputs, samples = batch(random_scene())
    assert 'extra' in model.loss(inputs, samples)
    model.iteration = 7
    model.loss(inputs, samples)
    assert heard == [None, 7]
