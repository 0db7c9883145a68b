"""The query decoder against the reference values and against itself in other clothes."""

import pytest
import torch

from oneformer3d.segmentor.query_decoder import QueryDecoder, blocked_positions
from tests.helpers.reference_values import oneformer3d_reference

SETTINGS = {
    'num_layers': 2,
    'num_instance_queries': 0,
    'num_semantic_queries': 0,
    'num_instance_classes': 3,
    'num_semantic_classes': 5,
    'in_channels': 4,
    'd_model': 16,
    'num_heads': 2,
    'hidden_dim': 32,
}


@pytest.fixture(scope='module')
def reference():
    return oneformer3d_reference()


def test_matches_the_reference_values(reference):
    settings = dict(reference['config']['decoder'])
    settings.pop('type')
    decoder = QueryDecoder(**settings).eval()
    weights = {
        key.removeprefix('decoder.'): value
        for key, value in reference['state_dict'].items()
        if key.startswith('decoder.')
    }
    decoder.load_state_dict(weights, strict=True)

    with torch.no_grad():
        output = decoder(reference['sp_feats'], reference['sp_feats'])
    for key in ('cls_preds', 'sem_preds', 'masks'):
        for got, expected in zip(output[key], reference[key]):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)

    assert len(output['aux_outputs']) == len(reference['aux'])
    for layer, expected_layer in zip(output['aux_outputs'], reference['aux']):
        assert layer['sem_preds'] is None
        for key in ('cls_preds', 'masks'):
            for got, expected in zip(layer[key], expected_layer[key]):
                torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_learned_queries_equal_projected_superpoints_of_the_same_value():
    selected = QueryDecoder(**SETTINGS).eval()
    learned = QueryDecoder(
        **{**SETTINGS, 'num_instance_queries': 4, 'num_semantic_queries': 3}
    ).eval()
    features = torch.randn(7, 4)
    weights = {k: v for k, v in selected.state_dict().items() if not k.startswith('query_proj')}
    weights['query.weight'] = selected.query_proj(features).detach()
    learned.load_state_dict(weights)
    expected, got = selected([features], [features]), learned([features])
    for key in ('cls_preds', 'sem_preds', 'masks'):
        torch.testing.assert_close(got[key], expected[key])


def test_features_of_another_width_are_named():
    decoder = QueryDecoder(**SETTINGS)
    wide = torch.randn(5, SETTINGS['in_channels'] + 96)
    with pytest.raises(ValueError, match='side_channels=0, got 100 channels'):
        decoder([wide], [wide])


def test_side_channels_start_unseen_and_then_count_as_a_wider_input():
    narrow = QueryDecoder(**SETTINGS).eval()
    wide = QueryDecoder(**SETTINGS, side_channels=3).eval()
    missing, unexpected = wide.load_state_dict(narrow.state_dict(), strict=False)
    sides = {'input_proj.0.side', 'query_proj.0.side', 'x_mask.0.side'}
    assert set(missing) == sides
    assert not unexpected
    features, side = torch.randn(7, 4), torch.randn(7, 3)
    both = torch.cat((features, side), dim=1)
    expected, got = narrow([features], [features]), wide([both], [both])
    for key in ('cls_preds', 'sem_preds', 'masks'):
        torch.testing.assert_close(got[key], expected[key])
    # The same as a decoder of seven channels whose weights stand side by side.
    state = wide.state_dict()
    for name in sides:
        torch.nn.init.normal_(state[name])
    joined = {name: value for name, value in state.items() if name not in sides}
    for name in sides:
        weight = name.replace('side', 'weight')
        joined[weight] = torch.cat((state[weight], state[name]), dim=1)
    seven = QueryDecoder(**{**SETTINGS, 'in_channels': 7}).eval()
    seven.load_state_dict(joined)
    expected, got = seven([both], [both]), wide([both], [both])
    for key in ('cls_preds', 'sem_preds', 'masks'):
        torch.testing.assert_close(got[key], expected[key])


def test_a_sample_does_not_see_its_batch():
    decoder = QueryDecoder(**SETTINGS).eval()
    samples = [torch.randn(6, 4), torch.randn(9, 4)]
    both = decoder(samples, samples)
    for i, sample in enumerate(samples):
        torch.testing.assert_close(both['masks'][i], decoder([sample], [sample])['masks'][0])


def test_attention_is_blocked_outside_the_mask_and_open_for_an_empty_one():
    logits = torch.tensor([[1.0, -1.0, 2.0], [-1.0, -2.0, -3.0]], requires_grad=True)
    blocked = blocked_positions(logits)
    assert blocked.tolist() == [[False, True, False], [False, False, False]]
    assert not blocked.requires_grad


def test_masked_superpoints_do_not_reach_the_query():
    decoder = QueryDecoder(**SETTINGS).eval()
    layer = decoder.cross_attn_layers[0]
    queries, keys = torch.randn(1, 16), torch.randn(3, 16)
    blocked = torch.tensor([[False, True, False]])
    changed = keys.clone()
    changed[1] += 100
    torch.testing.assert_close(layer(queries, keys, blocked), layer(queries, changed, blocked))
    assert not torch.allclose(layer(queries, keys, None), layer(queries, changed, None))


def test_without_fix_attention_cross_attention_is_a_bare_residual():
    decoder = QueryDecoder(**SETTINGS, fix_attention=False, dropout=0.5)
    layer = decoder.cross_attn_layers[0].eval()
    queries, keys = torch.randn(3, 16), torch.randn(5, 16)
    attended = layer.attn(queries[None], keys[None], keys[None])[0][0]
    torch.testing.assert_close(layer(queries, keys, None), queries + attended)
    assert 'cross_attn_layers.0.norm.weight' in decoder.state_dict()


@pytest.mark.parametrize('iter_pred', [True, False])
def test_outputs_and_shapes(iter_pred):
    decoder = QueryDecoder(**SETTINGS, iter_pred=iter_pred, objectness_flag=True)
    output = decoder([torch.randn(9, 4)], [torch.randn(5, 4)])
    assert output['cls_preds'][0].shape == (5, 4)
    assert output['sem_preds'][0].shape == (5, 6)
    assert output['masks'][0].shape == (5, 9)
    assert output['scores'][0].shape == (5, 1)
    if iter_pred:
        assert len(output['aux_outputs']) == 2
        assert decoder([torch.randn(9, 4)], [torch.randn(5, 4)], False)['aux_outputs'] is None
    else:
        assert output['aux_outputs'] is None


def test_one_superpoint_has_finite_gradients():
    decoder = QueryDecoder(**SETTINGS)
    features = torch.randn(1, 4, requires_grad=True)
    output = decoder([features], [features])
    (output['masks'][0].sum() + output['cls_preds'][0].sum()).backward()
    assert torch.isfinite(features.grad).all()


def test_works_under_bfloat16_autocast():
    decoder = QueryDecoder(**SETTINGS).eval()
    features = [torch.randn(20, 4)]
    exact = decoder(features, features)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = decoder(features, features)
    assert torch.isfinite(rough['masks'][0]).all()
    initial, expected = rough['aux_outputs'][0]['masks'][0], exact['aux_outputs'][0]['masks'][0]
    torch.testing.assert_close(initial.float(), expected, rtol=0.1, atol=0.2)


def test_wrong_settings_and_queries_are_refused():
    with pytest.raises(ValueError, match='num_classes=4'):
        QueryDecoder(**SETTINGS, num_classes=4)
    with pytest.raises(ValueError, match='activation_fn'):
        QueryDecoder(**SETTINGS, activation_fn='swish')
    with pytest.raises(ValueError, match='num_semantic_linears'):
        QueryDecoder(**SETTINGS, num_semantic_linears=3)
    with pytest.raises(TypeError, match='num_layer'):
        QueryDecoder(**SETTINGS, num_layer=3)
    with pytest.raises(ValueError, match='expected queries'):
        QueryDecoder(**SETTINGS)([torch.randn(2, 4)])
    learned = QueryDecoder(**{**SETTINGS, 'num_instance_queries': 4})
    with pytest.raises(ValueError, match='they are learned'):
        learned([torch.randn(2, 4)], [torch.randn(2, 4)])


def test_a_semantic_head_of_two_linears():
    decoder = QueryDecoder(**SETTINGS, num_semantic_linears=2)
    assert decoder.out_sem[2].weight.shape == (6, 16)
