"""Feature fields as their document writes the calls; see ``docs/call_forms.md``."""

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.fields import (
    FeatureField,
    FeatureRenderer,
    FrequencyEncoding,
    HashGrid,
    HashGridField,
    ProposalNetwork,
    ProposalSampler,
    Rays,
    contract,
    relevancy,
    total_loss,
    weights_from_density,
)

SMALL = dict(num_levels=2, features_per_level=4, log2_hashmap_size=8, max_res=32)


def test_feature_field_defaults_are_the_documents():
    field = FeatureField()
    assert len(field.grid.levels) == 12
    assert field.grid.features_per_level == 8
    assert field.grid.table.shape[0] <= 12 * 2**19
    assert field.encoding_dim == 12 * 8 + 36
    assert field.feature_dim == 768
    assert [layer.out_features for layer in field.net if hasattr(layer, 'out_features')] == [
        64, 64, 768,
    ]  # fmt: skip


def test_feature_field_keywords():
    field = FeatureField(
        feature_dim=768, spatial_distortion=None, use_pe=True, pe_n_freq=6, num_levels=12,
        log2_hashmap_size=10, start_res=16, max_res=128, features_per_level=8, hidden_dim=64,
        num_layers=2, feature_type='CLIP',
    )  # fmt: skip
    assert field(torch.rand(7, 3)).shape == (7, 768)
    assert FeatureField(use_pe=False, **SMALL).encoding_dim == 2 * 4


def test_spatial_distortion_is_scene_contraction():
    """positions in [−2, 2]³, then (positions + 2) / 4."""
    far = torch.tensor([[30.0, -4.0, 0.2], [0.1, 0.2, 0.3]])
    positions = contract(far)
    assert positions.abs().max() < 2
    field = FeatureField(5, spatial_distortion=contract, **SMALL)
    expected = field.grid((positions + 2.0) / 4.0)
    torch.testing.assert_close(field.encode(far)[:, :8], expected)
    with pytest.raises(ValueError, match='expected None or'):
        FeatureField(5, spatial_distortion=torch.tanh, **SMALL)


def test_types_of_features():
    assert FeatureField(feature_type='DINO', **SMALL).feature_dim == 384
    assert FeatureField(5, feature_type='ROBOPOINT', **SMALL)(torch.rand(7, 3)).shape == (7, 5)
    with pytest.raises(ValueError, match=r"DINOCLIP is two fields.*'DINOCLIP': None"):
        FeatureField(feature_type='DINOCLIP', **SMALL)
    both = HashGridField(features={'DINOCLIP': None}, log2_hashmap_size=8, feature_options=SMALL)
    values = both(torch.rand(4, 3))
    assert values['features_clip'].shape == (4, 768)
    assert values['features_dino'].shape == (4, 384)


def test_encodings_by_themselves():
    grid = HashGrid(
        num_levels=12, features_per_level=8, log2_hashmap_size=8, base_resolution=16,
        per_level_scale=1.20,
    )  # fmt: skip
    assert grid(torch.rand(5, 3)).shape == (5, 96)
    assert FrequencyEncoding(3, 6)(torch.rand(5, 3)).shape == (5, 36)


def test_features_are_rendered_as_the_weighted_sum():
    features, weights = torch.randn(4, 6, 8), torch.rand(4, 6, 1)
    expected = (features * weights).sum(-2)
    torch.testing.assert_close(FeatureRenderer()(features, weights), expected)
    torch.testing.assert_close(FeatureRenderer.forward(features, weights), expected)


def test_proposals_give_samples_and_their_weights():
    sampler = ProposalSampler([ProposalNetwork(32, 2, 8)], (16,), 8)
    field = HashGridField(num_classes=2, num_levels=2, log2_hashmap_size=8, max_resolution=32)
    one = torch.ones(4)
    rays = Rays(torch.zeros(4, 3), F.normalize(torch.randn(4, 3), dim=-1), 0.1 * one, one, one)
    edges, weights_list = sampler(field, rays)
    assert edges.shape == (4, 9)
    assert weights_list[0][1].shape == (4, 16)
    weights, _ = weights_from_density(torch.rand(4, 8), edges)
    assert weights.shape == (4, 8)


def test_each_type_of_features_has_its_own_loss():
    """1e-3 × MSE of each, features of CLIP against CLIP's, of DINO against DINO's."""
    outputs = {'accumulation': torch.ones(3), 'features_clip': torch.rand(3, 5)}
    outputs['features_dino'] = torch.rand(3, 4)
    batch = {'features_clip': torch.rand(3, 5), 'features_dino': torch.rand(3, 4)}
    total, terms = total_loss(outputs, batch)
    expected = {name: F.mse_loss(outputs[name], batch[name]) for name in batch}
    torch.testing.assert_close(terms, expected)
    torch.testing.assert_close(total, 1e-3 * sum(expected.values()))


def test_similarity_with_text():
    features, positives = F.normalize(torch.randn(6, 8), dim=-1), F.normalize(torch.eye(8)[:2])
    found = relevancy(features, positives, F.normalize(torch.ones(1, 8)))
    assert found.shape == (6, 2)
