"""Semantic fields as their document writes the calls; see ``docs/call_forms.md``."""

import pytest
import torch
import torch.nn.functional as F

from oneformer3d.fields import (
    LERF,
    PanopticNeRF,
    PositionalEncoding,
    SemanticNeRF,
    SemanticNeRFLoss,
    clip_feature_loss,
    contrastive_instance_loss,
    create_nerf_dataset,
    hierarchical_sampling,
    query_lerf_with_text,
    query_nerf_at_points,
    render_semantic_rays,
    sample_rays,
    segment_scan_with_field,
    train_semantic_nerf,
)
from oneformer3d.lifting import invert_pose
from tests.helpers.small_scenes import K, box_views, quick_settings, wall_points

POINTS = torch.rand(5, 3)
DIRECTIONS = F.normalize(torch.randn(5, 3), dim=1)


class Words(torch.nn.Module):
    """A text tower small enough for a test: mean of embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.context_length = 77
        self.logit_scale = torch.nn.Parameter(torch.ones(()))
        self.table = torch.nn.Embedding(49408, 16)

    def encode_text(self, tokens):
        return self.table(tokens).mean(1)


def test_positional_encoding():
    encoded = PositionalEncoding(input_dim=3, encoding_dim=10)(POINTS)
    expected = [POINTS]
    for freq in 2.0 ** torch.linspace(0, 9, 10):
        expected += [torch.sin(POINTS * freq), torch.cos(POINTS * freq)]
    torch.testing.assert_close(encoded, torch.cat(expected, dim=-1))


def test_semantic_nerf_and_its_networks():
    nerf = SemanticNeRF()
    sizes = {
        'density_net': [(63, 256), (256, 256), (256, 256), (256, 256)],
        'rgb_net': [(256 + 27, 128), (128, 3)],
        'semantic_net': [(256, 256), (256, 20)],
    }
    for name, expected in sizes.items():
        layers = [x for x in getattr(nerf, name) if isinstance(x, torch.nn.Linear)]
        assert [(x.in_features, x.out_features) for x in layers] == expected
    assert nerf.density_head.out_features == 1
    assert nerf.feature_head.out_features == 256

    small = SemanticNeRF(pos_encoding_dims=10, view_encoding_dims=4, hidden_dim=32, num_classes=20)
    assert small(POINTS, DIRECTIONS)['semantics'].shape == (5, 20)
    # by hand, as the document's renderer does
    features = small.feature_head(small.density_net(small.pos_encoder(POINTS)))
    torch.testing.assert_close(small.semantic_net(features), small(POINTS, DIRECTIONS)['semantics'])
    rgb = small.rgb_net(torch.cat([features, small.view_encoder(DIRECTIONS)], dim=-1))
    torch.testing.assert_close(rgb, small(POINTS, DIRECTIONS)['rgb'])


def test_panoptic_nerf():
    panoptic = PanopticNeRF(num_semantic_classes=4, max_instances=6, instance_feature_dim=8)
    outputs = panoptic(POINTS, DIRECTIONS)
    assert set(outputs) == {'rgb', 'density', 'semantics', 'instance_features'}
    assert outputs['instance_features'].norm(dim=-1).allclose(torch.ones(5))
    assert panoptic.instance_embeddings.weight.shape == (6, 8)
    assert panoptic.temperature.item() == pytest.approx(0.07)

    base = panoptic.base_nerf
    hidden = base.feature_head(base.density_net(base.pos_encoder(POINTS)))
    by_hand = F.normalize(panoptic.instance_feature_net(hidden), dim=-1)
    torch.testing.assert_close(by_hand, outputs['instance_features'])


def test_contrastive_instance_loss():
    features = torch.randn(6, 8)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    near = contrastive_instance_loss(features, labels, temperature=0.07)
    assert near > contrastive_instance_loss(F.one_hot(labels, 8).float(), labels)


def test_lerf_and_its_text():
    lerf = LERF(clip_model=Words(), feature_dim=16, hidden_dim=16)
    outputs = lerf(POINTS, DIRECTIONS, text_queries=['car', 'tree'])
    assert outputs['language_features'].shape == (5, 16)
    assert outputs['relevancy'].shape == (5, 2)
    assert lerf.encode_text(['car']).norm(dim=-1).allclose(torch.ones(1))
    assert isinstance(lerf.clip_model, Words)
    assert lerf.base_nerf.density_head(torch.rand(2, 16)).shape == (2, 1)
    assert lerf.language_decoder[-1].out_features == 16
    assert float(lerf.scale) == pytest.approx(0.1)

    found = query_lerf_with_text(lerf, POINTS, ['car', 'tree', 'building', 'road'], threshold=0.5)
    assert set(found) == {'labels', 'confidence', 'valid_mask', 'relevancy_matrix'}
    assert found['relevancy_matrix'].shape == (5, 4)


def test_lerf_without_weights_says_what_is_missing():
    lerf = LERF(clip_model='ViT-B/32', feature_dim=512, hidden_dim=16)
    assert lerf(POINTS, DIRECTIONS)['language_features'].shape == (5, 512)
    assert 'clip' not in ' '.join(lerf.state_dict())


def test_clip_feature_loss():
    class Clip(torch.nn.Module):
        def preprocess(self, patch):
            return patch.mean((0, 1))

        def encode_image(self, patch):
            return patch

    image = torch.rand(64, 64, 3)
    loss = clip_feature_loss(torch.rand(64, 64, 3), image, Clip(), patch_size=32)
    assert 0 <= float(loss) <= 2


def test_rendering_sampling_and_loss():
    nerf = SemanticNeRF(hidden_dim=16, num_classes=4)
    origins, directions = torch.zeros(6, 3), F.normalize(torch.ones(6, 3), dim=1)
    shown = render_semantic_rays(
        nerf, origins, directions, near=0.1, far=10.0, num_samples=64, use_hierarchical=True
    )
    assert shown['semantics'].shape == (6, 4)
    assert shown['weights'].shape == (6, 64 + 32)

    along = origins[:, None] + directions[:, None] * torch.linspace(0.1, 10, 8)[:, None]
    points, _ = hierarchical_sampling(along, torch.rand(6, 8), 4)
    assert points.shape == (6, 4, 3)

    loss_fn = SemanticNeRFLoss(
        rgb_weight=1.0, semantic_weight=1.0, depth_weight=0.1, regularization_weight=0.01
    )
    target = torch.rand(6, 3), torch.ones(6).long()
    total, terms = loss_fn(shown['rgb'], shown['semantics'], shown['depth'], *target)
    assert torch.isfinite(total)
    assert set(terms) == {'rgb', 'semantic', 'depth', 'regularization'}
    _, terms = loss_fn(
        shown['rgb'], shown['semantics'], shown['depth'], *target,
        gt_depth=torch.ones(6), density_values=shown['density'],
    )  # fmt: skip
    assert terms['depth'] > 0
    assert terms['regularization'] > 0


def test_a_scan_is_trained_and_queried():
    """The document's own chain: images and cameras → dataset → training → points."""
    views = box_views(3)
    cameras = [(K, pose) for pose in views['world_from_cam']]
    train_dataset = create_nerf_dataset(views['images'], cameras)
    item = train_dataset[0]
    rays = sample_rays(item['image'], item['semantics'], item['intrinsics'], item['extrinsics'], 7)
    assert [tuple(x.shape) for x in rays] == [(7, 3), (7, 3), (7, 3), (7,)]

    nerf = SemanticNeRF(hidden_dim=16, num_classes=4)
    train_semantic_nerf(nerf, train_dataset, num_iterations=2, batch_size=16, learning_rate=5e-4)
    found = query_nerf_at_points(nerf, POINTS, chunk_size=4, return_confidence=True)
    assert {'labels', 'confidence', 'semantic_confidence'} <= set(found)

    pc_data = {'pos': POINTS}
    result = segment_scan_with_field(pc_data, views['images'], cameras, nerf_model=nerf)
    assert result['labels'].shape == (5,)
    assert set(pc_data) == {'pos'}


def test_poses_of_another_convention():
    views = box_views(2)
    inverse = [(K, invert_pose(pose)) for pose in views['world_from_cam']]
    items = create_nerf_dataset(views['images'], inverse, convention='cam_from_world')
    torch.testing.assert_close(items[1]['extrinsics'], views['world_from_cam'][1])


def test_a_scan_of_images_and_cameras_alone_teaches_colour_and_depth():
    """Without any labels there is nothing to say of classes, but the field is there to be seen."""
    views, losses = box_views(3), []
    points, _ = wall_points(3000)
    cameras = [(K, pose) for pose in views['world_from_cam']]
    result = segment_scan_with_field(
        {'pos': points}, views['images'], cameras, training_iterations=25,
        settings=quick_settings(holdout_every=0, labels='none', batch_rays=128),
        on_step=lambda step, values: losses.append(values['rgb']),
    )  # fmt: skip
    assert (result['labels'] == 255).all()
    assert not result['label_confidence'].any()
    assert len(losses) == 25
    assert losses[-1] < 0.7 * losses[0]
    assert 'semantics' not in result['field'].field.head_nets

    # and it is a model for the same call
    again = segment_scan_with_field({'pos': points}, [], [], nerf_model=result['field'])
    assert again['field'] is result['field']


def test_a_labelled_scan_goes_on_from_its_checkpoint(tmp_path):
    views, steps = box_views(3), []
    images = [dict(image=i, semantics=s) for i, s in zip(views['images'], views['semantics'])]
    cameras = [(K, pose) for pose in views['world_from_cam']]
    for _ in range(2):
        result = segment_scan_with_field(
            {'pos': POINTS}, images, cameras, training_iterations=2, out=tmp_path,
            settings=quick_settings(holdout_every=0, labels='none', proposals='never'),
            on_step=lambda step, values: steps.append(step),
        )  # fmt: skip
    assert result['labels'].shape == (5,)
    assert steps == [1, 2]  # the second call finds it finished
