"""Aggregators against one point at a time, and what none of them may depend on."""

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.lifting.aggregation import (
    AGGREGATORS,
    LearnableFusion,
    MultiViewAggregator,
    PositionalEncoding3D,
    TransformerFeatureAggregator,
    build_aggregator,
)

C = 16
SETTINGS = {
    'learnable': {'num_views': 9},
    'transformer': {'d_model': 16, 'nhead': 4, 'num_layers': 2, 'dim_feedforward': 32},
}
NAMES = sorted(AGGREGATORS)


def build(name: str):
    return build_aggregator({'type': name, **SETTINGS.get(name, {})}, C).eval()


def scene(num_points: int = 12, num_views: int = 5):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(num_points, num_views, C, generator=generator)
    confidence = torch.rand(num_points, num_views, generator=generator) * 0.9 + 0.1
    mask = torch.rand(num_points, num_views, generator=generator) > 0.4
    mask[0] = False
    mask[1] = True
    points = torch.rand(num_points, 3, generator=generator) * 4
    return features, confidence, mask, points


@pytest.mark.parametrize('name', [n for n in NAMES if n != 'learnable'])
def test_table_equals_points_one_by_one(name):
    """Every point alone, with nothing but its own views."""
    aggregator = build(name)
    features, confidence, mask, points = scene()
    whole = aggregator(features, confidence=confidence, mask=mask, points_3d=points)
    for i, seen in enumerate(mask):
        ids = seen.nonzero()[:, 0]
        alone = aggregator(
            features[i : i + 1, ids],
            confidence=confidence[i : i + 1, ids],
            points_3d=points[i : i + 1],
            view_ids=ids,
        )
        torch.testing.assert_close(whole[i], alone[0], atol=1e-5, rtol=1e-4)


def test_simple_ones_are_their_formula():
    features, confidence, mask, points = scene()
    expected = {'mean': [], 'max': [], 'confidence': []}
    for f, c, seen in zip(features[1:], confidence[1:], mask[1:]):
        expected['mean'].append(f[seen].mean(0))
        expected['max'].append(f[seen].max(0).values)
        expected['confidence'].append((f[seen] * c[seen, None]).sum(0) / c[seen].sum())
    for name, rows in expected.items():
        result = build(name)(features, confidence=confidence, mask=mask, points_3d=points)[1:]
        torch.testing.assert_close(result, torch.stack(rows))


def test_attention_is_its_formula():
    """Multi-head attention written out, pooled by the confidence."""
    features, confidence, mask, _ = scene()
    aggregator = MultiViewAggregator(C, num_heads=8).eval()
    result = aggregator(features, confidence, mask)
    attention = aggregator.attention
    for i in range(1, len(features)):
        ids = mask[i].nonzero()[:, 0]
        c = confidence[i, ids]
        x = (features[i, ids] + aggregator.view_embedding(ids)) * c[:, None]
        q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=1)
        heads = []
        for head in range(8):
            part = slice(2 * head, 2 * head + 2)
            weights = (q[:, part] @ k[:, part].T / 2**0.5).softmax(1)
            heads.append(weights @ v[:, part])
        attended = attention.out_proj(torch.cat(heads, dim=1))
        expected = (attended * c[:, None]).sum(0) / c.sum()
        torch.testing.assert_close(result[i], expected, atol=1e-5, rtol=1e-4)


def test_learnable_fusion_is_its_formula():
    features, confidence, _, _ = scene(num_views=3)
    fusion = LearnableFusion(C, num_views=4).eval()
    with torch.no_grad():
        fusion.fusion_weights.copy_(torch.tensor([0.3, -1.0, 2.0, 0.0]))
    weights = fusion.fusion_weights.softmax(0)
    slots = torch.cat(
        [features[:, v] * weights[v] for v in range(3)] + [torch.zeros(len(features), C)], dim=1
    )
    torch.testing.assert_close(fusion(features, confidence), fusion.feature_transform(slots))
    # an absent view leaves its slot empty, and the weights train
    mask = torch.ones(len(features), 3, dtype=torch.bool)
    mask[:, 1] = False
    slots = slots.reshape(len(features), 4, C).clone()
    slots[:, 1] = 0
    torch.testing.assert_close(
        fusion(list(features.unbind(1)), confidence, mask),
        fusion.feature_transform(slots.flatten(1)),
    )
    fusion(features).sum().backward()
    assert fusion.fusion_weights.grad.abs().sum() > 0


def test_learnable_fusion_has_so_many_slots():
    with pytest.raises(ValueError, match='5 views for 4 slots'):
        LearnableFusion(C, 4)(torch.zeros(2, 5, C))


@pytest.mark.parametrize('name', [n for n in NAMES if n != 'learnable'])
def test_order_of_views_does_not_matter(name):
    aggregator = build(name)
    features, confidence, mask, points = scene()
    order = torch.tensor([3, 0, 4, 1, 2])
    straight = aggregator(features, confidence=confidence, mask=mask, points_3d=points)
    permuted = aggregator(
        features[:, order],
        confidence=confidence[:, order],
        mask=mask[:, order],
        points_3d=points,
        view_ids=order,
    )
    torch.testing.assert_close(straight, permuted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('name', NAMES)
def test_any_number_of_views(name):
    aggregator = build(name)
    for num_views in (0, 1, 9):
        features, confidence, mask, points = scene(num_views=max(1, num_views))
        features, confidence, mask = (x[:, :num_views] for x in (features, confidence, mask))
        result = aggregator(features, confidence=confidence, mask=mask, points_3d=points)
        assert result.shape == (12, C)
        assert torch.isfinite(result).all()
    if name != 'learnable':
        assert aggregator(torch.randn(3, 40, C), points_3d=torch.rand(3, 3)).shape == (3, C)


@pytest.mark.parametrize('name', NAMES)
def test_no_view_is_a_learned_token(name):
    aggregator = build(name)
    features, confidence, mask, points = scene()
    mask[2] = False
    result = aggregator(features, confidence=confidence, mask=mask, points_3d=points)
    torch.testing.assert_close(result[[0, 2]], aggregator.no_view.expand(2, -1))
    result[0].sum().backward()
    torch.testing.assert_close(aggregator.no_view.grad, torch.ones(C))
    # no confidence is no view
    confidence = torch.where(mask, confidence, 0.0)
    torch.testing.assert_close(
        result, aggregator(features, confidence=confidence, points_3d=points)
    )
    assert aggregator(
        features[:0], confidence=confidence[:0], mask=mask[:0], points_3d=points[:0]
    ).shape == (0, C)


@pytest.mark.parametrize('name', NAMES)
def test_what_is_not_finite_is_not_seen(name):
    aggregator = build(name)
    features, confidence, mask, points = scene()
    expected = aggregator(features, confidence=confidence, mask=mask, points_3d=points)
    dirty = features.clone()
    dirty[~mask] = torch.nan
    torch.testing.assert_close(
        aggregator(dirty, confidence=confidence, mask=mask, points_3d=points), expected
    )
    mask[1, 2] = False
    expected = aggregator(features, confidence=confidence, mask=mask, points_3d=points)
    mask[1, 2] = True
    dirty[1, 2, 3] = torch.inf
    result = aggregator(dirty.requires_grad_(), confidence=confidence, mask=mask, points_3d=points)
    torch.testing.assert_close(result, expected)
    result.sum().backward()
    assert torch.isfinite(dirty.grad[mask]).all()
    assert all(torch.isfinite(p.grad).all() for p in aggregator.parameters() if p.grad is not None)


@pytest.mark.parametrize('name', ['attention', 'gated', 'pooled', 'confidence', 'transformer'])
def test_gradients(name):
    aggregator = build(name).double()
    features, confidence, mask, points = (
        x.double() if x.is_floating_point() else x for x in scene(num_points=3, num_views=3)
    )

    def function(features, confidence):
        return aggregator(features, confidence=confidence, mask=mask, points_3d=points)

    assert torch.autograd.gradcheck(
        function, (features.requires_grad_(), confidence.requires_grad_()), atol=1e-4
    )


def test_transformer_reads_positions():
    aggregator = TransformerFeatureAggregator(feature_dim=C, **SETTINGS['transformer']).eval()
    features, confidence, mask, points = scene()
    moved = aggregator(features, points + 0.5, confidence, mask)
    assert (moved - aggregator(features, confidence=confidence, mask=mask, points_3d=points))[
        1:
    ].abs().max() > 1e-3
    with pytest.raises(ValueError, match='needs points'):
        aggregator(features, confidence=confidence)


def test_documented_sizes():
    aggregator = TransformerFeatureAggregator()
    assert aggregator.feature_dim == 256
    assert len(aggregator.transformer.layers) == 6
    assert aggregator.transformer.layers[0].self_attn.num_heads == 8
    assert MultiViewAggregator(256).attention.num_heads == 8


def test_positional_encoding_is_sinusoids():
    encoding = PositionalEncoding3D(14)
    result = encoding(torch.tensor([[0.05, 0.0, 25.0]]))
    assert result.shape == (1, 14)
    # wavelengths 10 cm and 100 m: sin, sin, cos, cos of x, y and z, then two zeros
    x = [torch.pi, 2 * torch.pi * 0.05 / 100]
    expected = [torch.sin(torch.tensor(a)) for a in x] + [torch.cos(torch.tensor(a)) for a in x]
    torch.testing.assert_close(result[0, :4], torch.stack(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(result[0, 4:8], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    torch.testing.assert_close(result[0, 9], torch.tensor(1.0))
    assert (result[0, 12:] == 0).all()
    with pytest.raises(ValueError, match='at least 6'):
        PositionalEncoding3D(5)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((torch.zeros(2, C),), r'features: expected \(N, V, C\) with C=16'),
        ((torch.zeros(2, 3, C + 1),), r'features: expected \(N, V, C\) with C=16'),
        ((torch.zeros(2, 3, C), torch.zeros(3, 2)), 'confidence: expected'),
        ((torch.zeros(2, 3, C), None, torch.zeros(2, dtype=torch.bool)), 'mask: expected'),
        ((torch.zeros(2, 3, C), None, None, torch.zeros(2, 2)), 'points_3d: expected'),
        ((torch.zeros(2, 3, C), None, None, None, torch.zeros(4)), 'view_ids must be'),
        (([],), 'no views'),
        (([torch.zeros(2, C), torch.zeros(3, C)],), 'differ in shape'),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        build('mean')(*arguments)


def test_bad_settings():
    with pytest.raises(ValueError, match='expected one of'):
        build_aggregator('median', C)
    with pytest.raises(ValueError, match='does not divide'):
        build_aggregator({'type': 'gated', 'num_groups': 3}, C)
    with pytest.raises(ValueError, match='must be positive'):
        build_aggregator('mean', 0)
