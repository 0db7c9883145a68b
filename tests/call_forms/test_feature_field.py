"""Feature fields as their document writes the calls; see ``docs/call_forms.md``."""

import torch

from oneformer3d.fields import FeatureField, FeatureRenderer


def test_feature_field_defaults_are_the_documents():
    field = FeatureField()
    assert field.encoding_dim == 12 * 8 + 36
    assert field.feature_dim == 768
    assert FeatureField(feature_type='DINO', log2_hashmap_size=8).feature_dim == 384
    small = FeatureField(5, num_levels=2, log2_hashmap_size=8, feature_type='ROBOPOINT')
    assert small(torch.rand(7, 3)).shape == (7, 5)


def test_features_are_rendered_as_the_weighted_sum():
    features, weights = torch.randn(4, 6, 8), torch.rand(4, 6, 1)
    expected = (features * weights).sum(-2)
    torch.testing.assert_close(FeatureRenderer()(features, weights), expected)
    torch.testing.assert_close(FeatureRenderer.forward(features, weights), expected)
