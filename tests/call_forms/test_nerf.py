"""Semantic fields as their document writes the calls; see ``docs/call_forms.md``."""

import torch

from oneformer3d.fields import (
    LERF,
    PanopticNeRF,
    PositionalEncoding,
    SemanticNeRF,
    SemanticNeRFLoss,
    query_nerf_at_points,
    render_semantic_rays,
    segment_scan_with_field,
)
from tests.helpers.small_scenes import K, box_views, quick_settings


def test_encoding_and_networks():
    assert PositionalEncoding(3, 10)(torch.rand(5, 3)).shape == (5, 63)
    nerf = SemanticNeRF(pos_encoding_dims=10, view_encoding_dims=4, hidden_dim=32, num_classes=20)
    points, directions = torch.rand(5, 3), torch.nn.functional.normalize(torch.randn(5, 3), dim=1)
    assert nerf(points, directions)['semantics'].shape == (5, 20)
    for name in ('density_net', 'density_head', 'feature_head', 'rgb_net', 'semantic_net'):
        assert isinstance(getattr(nerf, name), torch.nn.Module)

    panoptic = PanopticNeRF(
        num_semantic_classes=4, max_instances=6, instance_feature_dim=8, hidden_dim=16
    )
    assert panoptic(points, directions)['instance_features'].shape == (5, 8)
    lerf = LERF(clip_model='ViT-B/32', feature_dim=16, hidden_dim=16)
    assert lerf(points, directions)['language_features'].shape == (5, 16)


def test_rays_loss_and_points():
    nerf = SemanticNeRF(hidden_dim=16, num_classes=4)
    origins, directions = torch.zeros(6, 3), torch.nn.functional.normalize(torch.ones(6, 3), dim=1)
    shown = render_semantic_rays(
        nerf, origins, directions, near=0.1, far=2.0, num_samples=8, use_hierarchical=True
    )
    assert shown['semantics'].shape == (6, 4)
    total, terms = SemanticNeRFLoss(1.0, 1.0, 0.1, 0.01)(
        shown['rgb'], shown['semantics'], shown['depth'], torch.rand(6, 3), torch.ones(6).long()
    )
    assert torch.isfinite(total)
    assert set(terms) == {'rgb', 'semantic', 'depth', 'regularization'}
    found = query_nerf_at_points(nerf, torch.rand(9, 3), chunk_size=4, return_confidence=True)
    assert found['labels'].shape == (9,)


def test_a_scan_of_images_and_cameras_alone_is_fitted():
    """Without any labels there is nothing to say of classes, and the call says just that."""
    views = box_views(3)
    cameras = [(K, pose) for pose in views['world_from_cam']]
    points = torch.rand(11, 3)
    result = segment_scan_with_field(
        {'pos': points},
        views['images'],
        cameras,
        training_iterations=1,
        settings=quick_settings(holdout_every=0, labels='none'),
    )
    assert (result['labels'] == 255).all()
    assert not result['label_confidence'].any()
