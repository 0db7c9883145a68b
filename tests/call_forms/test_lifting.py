"""Feature lifting as its document writes the calls; deviations stand in ``docs/call_forms.md``."""

import pytest
import torch

from oneformer3d import FeatureLiftingSegmentation, segment_scan, train_feature_lifting_model
from oneformer3d.backbones.fpn import build_fpn_backbone
from oneformer3d.backbones.pointnet2 import (
    Point3DProcessor,
    PointNetFeaturePropagation,
    PointNetSetAbstraction,
)
from oneformer3d.lifting import (
    BEVFeatureLifting,
    EfficientFeatureLifting,
    LearnableFusion,
    MultiViewAggregator,
    TransformerFeatureAggregator,
    check_grid_sample_shapes,
    compute_feature_confidence,
    extract_multiscale_features,
    lift_features_to_points,
    pixel_to_grid_coords,
    render_depth_from_pointcloud,
)

K = torch.tensor([[60.0, 0.0, 47.5], [0.0, 60.0, 31.5], [0.0, 0.0, 1.0]])
RT = torch.eye(4)
SIZE = (64, 96)


@pytest.fixture
def points_3d():
    generator = torch.Generator().manual_seed(0)
    cube = torch.rand(200, 3, generator=generator) - 0.5
    return cube + torch.tensor([0.0, 0.0, 1.5])


@pytest.fixture(scope='module')
def small_model():
    torch.manual_seed(0)
    return FeatureLiftingSegmentation(
        backbone_2d='resnet18',
        feature_dims=[64, 128, 256, 512],
        lifted_feature_dim=16,
        num_classes=5,
        point_processor={'npoint': (64, 16, 8), 'radius': (0.3, 0.6, 1.2)},
    )


def test_multiscale_features_of_the_default_backbone():
    backbone = build_fpn_backbone('resnet50')
    maps = extract_multiscale_features(torch.rand(1, 3, 64, 96), backbone)
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        'feat_1/4': (1, 256, 16, 24),
        'feat_1/8': (1, 512, 8, 12),
        'feat_1/16': (1, 1024, 4, 6),
        'feat_1/32': (1, 2048, 2, 3),
    }


def test_lift_features_to_points_by_its_keywords(points_3d):
    features_2d = {'feat_1/4': torch.randn(6, 16, 24), 'feat_1/8': torch.randn(4, 8, 12)}
    lifted, visible = lift_features_to_points(
        points_3d=points_3d,
        features_2d=features_2d,
        camera_intrinsics=K,
        camera_extrinsics=RT,
        image_shape=SIZE,
    )
    assert lifted.shape == (200, 10)
    assert visible.dtype == torch.bool

    # padding is zeros by default: grid_sample itself, in the corrected coordinates
    pixels = points_3d @ K.T
    grid = pixel_to_grid_coords(pixels[:, :2] / pixels[:, 2:], SIZE)[None, :, None]
    sampled = torch.nn.functional.grid_sample(
        features_2d['feat_1/4'][None], grid, padding_mode='zeros', align_corners=False
    )[0, :, :, 0].T
    torch.testing.assert_close(lifted[visible, :6], sampled[visible], atol=1e-5, rtol=1e-5)
    assert visible.any()


def test_grid_helpers():
    corner = pixel_to_grid_coords(torch.tensor([[0.0, 0.0]]), (480, 640))
    torch.testing.assert_close(corner, torch.tensor([[1 / 640 - 1, 1 / 480 - 1]]))
    assert check_grid_sample_shapes((2, 64, 100, 150), (2, 50, 75, 2)) == (2, 64, 50, 75)
    assert check_grid_sample_shapes((1, 512, 32, 32), (1, 10000, 1, 2)) == (1, 512, 10000, 1)


def test_confidence_is_the_documents_formula(points_3d):
    normals = torch.nn.functional.normalize(torch.randn(200, 3), dim=1)
    to_camera = RT[:3, 3] - points_3d
    distance = torch.exp(-to_camera.norm(dim=1) / 10.0)
    angle = (torch.nn.functional.normalize(to_camera, dim=1) * normals).sum(1).relu()
    with_normals = compute_feature_confidence(
        points_3d=points_3d, camera_extrinsics=RT, point_normals=normals
    )
    torch.testing.assert_close(with_normals, distance * angle)
    torch.testing.assert_close(compute_feature_confidence(points_3d, RT), distance)


def test_aggregators(points_3d):
    features, confidence = torch.randn(20, 3, 64), torch.rand(20, 3)
    assert MultiViewAggregator(64, 3)(features, confidence).shape == (20, 64)
    assert LearnableFusion(64, 3)(list(features.unbind(1))).shape == (20, 64)


def test_transformer_aggregator_by_position_and_keyword(points_3d):
    default = TransformerFeatureAggregator()
    assert default.transformer.num_layers == 6
    assert default.transformer.layers[0].self_attn.embed_dim == 256
    assert default.transformer.layers[0].self_attn.num_heads == 8

    torch.manual_seed(0)
    aggregator = TransformerFeatureAggregator(32, 4, 2).eval()
    features = torch.randn(20, 3, 32)
    by_position = aggregator(features, points_3d[:20])
    by_keyword = aggregator(multi_view_features=features, points_3d=points_3d[:20])
    assert by_position.shape == (20, 32)
    assert torch.equal(by_position, by_keyword)
    assert not torch.allclose(by_position, aggregator(features, points_3d[:20] + 1.0))


def test_point_network():
    network = Point3DProcessor(in_channels=8, num_classes=4, use_xyz=True).eval()
    assert network(torch.randn(1100, 8), torch.rand(1100, 3)).shape == (1100, 4)
    PointNetSetAbstraction(npoint=64, radius=0.1, nsample=8, in_channel=8 + 3, mlp=[16, 16])
    PointNetFeaturePropagation(in_channel=24, mlp=[16, 16])


def test_the_networks_defaults_are_the_documents():
    model = FeatureLiftingSegmentation()
    assert model.num_classes == 20
    assert list(model.backbone_2d.channels) == [256, 512, 1024, 2048]
    assert [x.out_channels for x in model.projectors] == [256] * 4
    again = FeatureLiftingSegmentation('resnet50', [256, 512, 1024, 2048], 256, 20)
    assert again.state_dict().keys() == model.state_dict().keys()
    for name in ('backbone_2d', 'projectors', 'point_processor', 'aggregator'):
        assert isinstance(getattr(model, name), torch.nn.Module)

    with pytest.raises(ValueError, match=r'feature_dims are .*the backbone has'):
        FeatureLiftingSegmentation('resnet18', [256, 512, 1024, 2048])
    with pytest.raises(ValueError, match='image_net holds all settings'):
        FeatureLiftingSegmentation('resnet18', image_net={'backbone': 'resnet18'})


def test_large_clouds_of_plain_points(small_model, points_3d):
    small_model.eval()
    images = [torch.rand(1, 3, 64, 96) for _ in range(2)]  # as the document feeds its backbone
    lifting = EfficientFeatureLifting(chunk_size=70)
    labels = lifting.process_large_pointcloud(
        points=points_3d, model=small_model, camera_params=[(K, RT)] * 2, images=images
    )
    assert labels.shape == (200,)
    assert len(lifting.feature_cache) == 2
    whole = EfficientFeatureLifting().process_large_pointcloud(
        points_3d, small_model, [(K, RT)] * 2, [x[0] for x in images]
    )
    assert torch.equal(labels, whole)


def test_training_on_a_loader_of_ones_own(small_model, points_3d):
    """Two classes that only the images tell apart are learnt; the backbone moves slower."""
    left = points_3d[:, 0] < 0
    image = torch.full((1, 3, 64, 96), 0.1)
    image[..., 48:] = 0.9
    batch = {
        'points': points_3d,
        'images': image,
        'labels': (~left).long(),
        'camera_params': [(K, RT)],
    }
    losses = train_feature_lifting_model(small_model, [batch] * 3, num_epochs=5)
    assert len(losses) == 5
    assert losses[-1] < losses[0]

    pixels = torch.zeros(1, 64, 96, dtype=torch.int64)
    pixels[..., 48:] = 1
    before = small_model.image_net.projectors[0].weight.clone()
    train_feature_lifting_model(
        small_model, [batch], 0, image_loader=[(image, pixels)], image_epochs=1
    )
    assert not torch.equal(before, small_model.image_net.projectors[0].weight)
    with pytest.raises(ValueError, match='no batches'):
        train_feature_lifting_model(small_model, [], 1)


def test_bev_as_a_method_of_an_empty_constructor(points_3d):
    maps, cameras = [torch.randn(8, 16, 24)] * 2, [(K, RT)] * 2
    grid, hits = BEVFeatureLifting().create_bev_features(
        points_3d, maps, cameras, 0.1, (200, 200), image_shape=SIZE
    )
    assert grid.shape == (8, 200, 200)
    by_keyword, _ = BEVFeatureLifting().create_bev_features(
        points=points_3d, image_features=maps, camera_params=cameras, image_shape=SIZE
    )
    assert torch.equal(grid, by_keyword)
    assert hits.sum() > 0
    with pytest.raises(ValueError, match='give image_shape'):
        BEVFeatureLifting().create_bev_features(points_3d, maps, cameras)


def test_depth_of_a_cloud_takes_width_first(points_3d):
    pc_data = {'pos': points_3d}
    resolution = (96, 64)  # (W, H)
    depth = render_depth_from_pointcloud(pc_data, K, RT, resolution, convention='opencv')
    assert depth.shape == (64, 96)
    assert (depth > 0).any()
    turned = RT * torch.tensor([1.0, -1.0, -1.0, 1.0])
    opengl = render_depth_from_pointcloud(pc_data, K, turned, resolution, convention='opengl')
    assert torch.equal(depth, opengl)


def test_a_scan_in_one_call(small_model, points_3d):
    small_model.eval()
    images = [torch.rand(3, 64, 96) for _ in range(2)]
    result = segment_scan({'pos': points_3d}, images, [(K, RT)] * 2, small_model)
    assert result['labels'].shape == (200,)
