"""The segmentor whose queries look at the views: what it starts as, and what reaches it."""

from dataclasses import replace

import pytest
import torch

from oneformer3d.registry import MODELS
from oneformer3d.stm.query_decoder import STMQueryDecoder, anchor_weights
from oneformer3d.structures import DecoderScene
from tests.helpers.fusion_scenes import batch, segmentor_settings
from tests.helpers.small_models import small_s3dis_settings, small_settings
from tests.helpers.stm_scenes import (
    PYRAMID,
    decoder_settings,
    fused_segmentor,
    open_gates,
    posed_scene,
    stm_segmentor,
)


def logits(model, *scenes):
    inputs, samples = batch(*scenes)
    with torch.no_grad():
        output = model.eval()(inputs, samples, mode='tensor')
    return [torch.cat([x.flatten() for x in output[key]]) for key in ('cls_preds', 'masks')]


def assert_same(got, expected):
    for x, y in zip(got, expected):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def differs(got, expected) -> bool:
    return any(not torch.allclose(x, y, atol=1e-4) for x, y in zip(got, expected))


@pytest.mark.parametrize('fused', [False, True])
def test_starts_as_the_plain_decoder_and_loads_its_weights(fused):
    plain = MODELS.build(segmentor_settings() if fused else small_settings())
    model = fused_segmentor() if fused else stm_segmentor()
    result = model.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert result.missing_keys
    assert all(key.startswith('decoder.view_') for key in result.missing_keys)
    scenes = posed_scene(0), posed_scene(1)
    for got, expected in zip(logits(model, *scenes), logits(plain, *scenes)):
        assert torch.equal(got, expected)


@pytest.mark.parametrize('num_views', [0, 1, 3])
@pytest.mark.parametrize('fused', [False, True])
def test_every_parameter_has_a_gradient_whatever_is_seen(num_views, fused):
    model = open_gates(fused_segmentor() if fused else stm_segmentor())
    inputs, samples = batch(posed_scene(0, num_views), posed_scene(1, num_views))
    total, _ = model.parse_losses(model(inputs, samples, mode='loss'))
    total.backward()
    assert torch.isfinite(total)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if num_views and name.startswith('decoder.view_layers'):
            assert parameter.grad.any(), name


def test_gates_learn_first():
    model = stm_segmentor()
    inputs, samples = batch(posed_scene(0))
    total, _ = model.parse_losses(model(inputs, samples, mode='loss'))
    total.backward()
    assert all(gate.grad.any() for gate in model.decoder.view_gates)
    assert not any(p.grad.any() for p in model.decoder.view_layers.parameters())


def test_without_views_it_is_the_plain_decoder_however_it_was_trained():
    model = open_gates(stm_segmentor())
    plain = MODELS.build(small_settings())
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if '.view_' not in k})
    points, views, sample = posed_scene(0)
    expected = logits(plain, (points, None, sample))
    assert_same(logits(model, (points, None, sample)), expected)
    assert_same(logits(model, posed_scene(0, 0)), expected)
    inputs, samples = batch((points, views, sample))
    del inputs['views']
    assert len(model.predict(inputs, samples)) == 1
    assert differs(logits(model, (points, views, sample)), expected)


def test_what_the_images_show_changes_the_result_unless_it_is_hidden():
    model = open_gates(stm_segmentor())
    points, views, sample = posed_scene(0)
    other = replace(views, feat=views.feat.flip(1))
    shown = logits(model, (points, views, sample))
    assert differs(logits(model, (points, other, sample)), shown)
    hidden, other = (replace(v, pixels_masked=True) for v in (views, other))
    assert_same(logits(model, (points, hidden, sample)), logits(model, (points, other, sample)))


def only(views, chosen):
    """Some of the views, in another order."""
    index = torch.tensor(chosen)
    place = torch.full((views.num_views,), -1)
    place[index] = torch.arange(len(chosen))
    pairs = views.pairs.select(place[views.pairs.view] >= 0)
    pairs = replace(pairs, view=place[pairs.view])
    order = torch.argsort(pairs.point * len(chosen) + pairs.view)
    columns = {name: getattr(pairs, name)[order] for name in ('point', 'view', 'uv', 'depth_z')}
    return replace(
        views,
        pairs=replace(pairs, **columns),
        world_from_cam=views.world_from_cam[index],
        feat=views.feat[index],
        clip_global=None,
        frames=tuple(views.frames[i] for i in chosen),
    )


def test_the_order_of_the_views_does_not_matter():
    model = open_gates(stm_segmentor())
    points, views, sample = posed_scene(0, 4)
    turned = only(views, [2, 0, 3, 1])
    assert_same(logits(model, (points, turned, sample)), logits(model, (points, views, sample)))


def test_another_number_of_views_than_in_training():
    model = open_gates(stm_segmentor())
    points, views, sample = posed_scene(0, 6)
    results = [logits(model, (points, only(views, range(n)), sample)) for n in (1, 2, 4, 6)]
    assert all(torch.isfinite(x).all() for result in results for x in result)
    assert differs(results[0], results[-1])


def test_views_that_do_not_see_a_query_do_not_reach_it():
    model = open_gates(stm_segmentor(num_view_slots=4))
    points, views, sample = posed_scene(0, 3)
    blind = replace(views, pairs=views.pairs.select(views.pairs.view != 1))
    changed = views.feat.clone()
    changed[1] = changed[1].flip(0)
    expected = logits(model, (points, blind, sample))
    assert_same(logits(model, (points, replace(blind, feat=changed), sample)), expected)
    assert differs(logits(model, (points, replace(views, feat=changed), sample)), expected)


def test_a_sample_does_not_see_its_batch():
    model = open_gates(stm_segmentor())
    scenes = posed_scene(0), posed_scene(1, 2)
    both = logits(model, *scenes)
    single = [logits(model, one) for one in scenes]
    assert_same(both, [torch.cat(parts) for parts in zip(*single)])


def test_both_kinds_of_boxes_and_each_anchor():
    points, views, sample = posed_scene(0)
    for changes in ({'box_mode': 'pixels'}, {'anchors': ['mask']}, {'anchors': ['own']}):
        model = open_gates(stm_segmentor(**changes))
        assert torch.isfinite(logits(model, (points, views, sample))[1]).all()
    no_intrinsics = replace(views, intrinsics=None)
    model = stm_segmentor(box_mode='pixels')
    assert torch.isfinite(logits(model, (points, no_intrinsics, sample))[1]).all()


def test_learned_queries():
    settings = small_s3dis_settings()
    settings['decoder'].update(
        {
            'type': 'STMQueryDecoder',
            'pyramid': PYRAMID,
            'num_view_points': 3,
            'num_view_groups': 2,
            'anchors': ['mask'],
        }
    )
    model = open_gates(MODELS.build(settings))
    inputs, samples = batch(posed_scene(0))
    total, _ = model.parse_losses(model(inputs, samples, mode='loss'))
    total.backward()
    assert all(gate.grad.any() for gate in model.decoder.view_gates)


def test_anchors():
    mask_logits = torch.tensor([[3.0, -1.0, 0.5], [-1.0, -2.0, -3.0]])
    query_ids = torch.tensor([2, 1])
    own = anchor_weights('own', mask_logits, query_ids)
    assert own.tolist() == [[0, 0, 1], [0, 1, 0]]
    mask = anchor_weights('mask', mask_logits, query_ids)
    share = mask_logits.sigmoid()
    torch.testing.assert_close(mask[0], torch.stack((share[0, 0], torch.tensor(0.0), share[0, 2])))
    assert mask[1].tolist() == [0, 1, 0]  # an empty mask: where it came from
    torch.testing.assert_close(anchor_weights('mask', mask_logits, None)[1], share[1])
    with pytest.raises(ValueError, match='needs query_ids'):
        anchor_weights('own', mask_logits, None)
    with pytest.raises(ValueError, match='2 queries but 1 query_ids'):
        anchor_weights('own', mask_logits, query_ids[:1])


def test_works_under_bfloat16_autocast():
    model = open_gates(stm_segmentor())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = logits(model, posed_scene(0))
    assert all(torch.isfinite(x).all() for x in rough)


def test_wrong_settings_and_inputs_are_named():
    settings = {k: v for k, v in decoder_settings().items() if k != 'type'}
    with pytest.raises(ValueError, match='iter_pred'):
        STMQueryDecoder(**settings, iter_pred=False)
    with pytest.raises(ValueError, match='anchors: expected a subset of'):
        STMQueryDecoder(**{**settings, 'anchors': ['box']})
    with pytest.raises(ValueError, match='box_mode'):
        STMQueryDecoder(**settings, box_mode='corners')
    with pytest.raises(ValueError, match='3 groups'):
        STMQueryDecoder(**{**settings, 'num_view_groups': 3})
    with pytest.raises(ValueError, match="superpoint of their 'own'"):
        STMQueryDecoder(**{**settings, 'num_instance_queries': 4})
    with pytest.raises(TypeError, match='num_layer'):
        STMQueryDecoder(**settings, num_layer=3)
    decoder = STMQueryDecoder(**settings)
    points, views, sample = posed_scene(0)
    features = torch.randn(12, 4)
    ids = sample.gt_pts_seg.sp_pts_mask
    with pytest.raises(ValueError, match='1 samples but 2 scenes'):
        decoder([features], [features], scenes=[DecoderScene(points, ids, views)] * 2)
    with pytest.raises(ValueError, match='10 superpoint features'):
        decoder(
            [features[:10]],
            [features[:10]],
            scenes=[DecoderScene(points, ids, views, torch.arange(10))],
        )
    other = replace(views, feat=views.feat[:, :5])
    with pytest.raises(ValueError, match=r'maps: expected \(V, C, h, w\) with .*C=12, got \(3, 5'):
        decoder([features], [features], scenes=[DecoderScene(points, ids, other)])
    without = replace(views, feat=None)
    with pytest.raises(ValueError, match='have no feature maps'):
        decoder([features], [features], scenes=[DecoderScene(points, ids, without)])
